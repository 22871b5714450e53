"""The entry of the `iii` command, and the one place where an exception becomes an exit code.

`iii trigger` takes a short path that imports neither click nor asyncio, and so do `iii dev` and `iii start` without
options; everything else is a click command. All of them end here.
"""

from __future__ import annotations

import os
import sys

# The names of `iii trigger`; the public command line of other versions has the last two.
TRIGGER_NAMES = ("trigger", "call", "t")
START_NAMES = ("dev", "start")
INTERRUPTED = 130
# What a shell reports for a program that SIGPIPE ended; Python ignores that signal.
BROKEN_PIPE = 141


def main() -> int:
    """Run the command line of this process and return its exit code."""
    # Started with a closed stdout (`>&-`) Python has none: what is written then goes nowhere, and is no failure.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open until the end
    try:
        code = _run([_as_utf8(word) for word in sys.argv[1:]])
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit; without this it would complain about the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the boundary: every failure leaves as a message and a code
        if is_interrupt(error):
            return INTERRUPTED
        from cli.client.errors import report  # only a failure pays for it

        # The --json of a trigger is its payload; everywhere else it asks for errors as JSON too.
        return report(error, as_json="--json" in sys.argv[2:] and sys.argv[1] not in TRIGGER_NAMES)


def is_interrupt(error: BaseException | None) -> bool:
    """Tell whether Ctrl-C caused an error: Python 3.11 wraps the interrupt in another error while a class is made."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


def _run(arguments: list[str]) -> int:
    try:
        os.getcwd()
    except FileNotFoundError:
        from cli.client.errors import UsageError  # only a failure pays for it

        raise UsageError("the current folder has been removed", "cd into one that is there") from None
    if arguments and arguments[0] in TRIGGER_NAMES:
        from cli.trigger.run import run  # the short path

        return run(arguments[1:])
    if arguments and arguments[0] in START_NAMES:
        # Until the engine has handlers of its own, Ctrl-C ends each process at once, and the guard what it has started.
        # Python's own handler would raise in the middle of some import, where the interrupt may be lost, leave as
        # another error, or leave a native module half made, in which the engine then dies.
        import signal  # a trigger does without

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    if len(arguments) == 1 and arguments[0] in START_NAMES:
        from cli.commands.project_file import run_project  # nothing to parse, and workers that wait

        is_dev = arguments[0] == "dev"
        return run_project(watch=is_dev, console=is_dev)
    from cli.commands.registry import run as run_command  # click costs more than a whole trigger

    return run_command(arguments)


def _as_utf8(word: str) -> str:
    # Where the locale is none (LC_ALL=C) Python keeps the bytes of other letters as surrogates.
    if word.isascii():
        return word
    try:
        return os.fsencode(word).decode()
    except UnicodeError:
        return word


if __name__ == "__main__":
    sys.exit(main())
