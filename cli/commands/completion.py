"""What a shell offers at TAB: names that a running project knows, and the scripts that ask for them.

Nothing here says a word when no engine runs, or when it takes longer than `TIME_LIMIT`: the shell then offers nothing.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from cli.client.connection import Connection, connect
from cli.text.output import shown, write, write_error
from cli.trigger.arguments import OPTIONS, parse
from cli.trigger.help import type_of
from cli.trigger.payload import resolved
from iii.errors import IIIError

ENVIRONMENT_VARIABLE = "_III_COMPLETE"
# Seconds from the start of the program; the user who pressed TAB waits for it.
TIME_LIMIT = 1.5
# Traces that are offered, the newest.
TRACES = 30

Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem[str]]"]  # subscriptable since click 8.3


def limit_time() -> None:
    """End this process at the time limit, whatever it waits for: an engine may hang in the middle of an answer."""
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
    # While Python ends it has no handlers any more, and the signal would kill it: the shell shows "Alarm clock".
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)


# What is known, as (name, help) pairs


def functions(connection: Connection, incomplete: str = "") -> Iterator[tuple[str, str]]:
    """Yield the functions that can be called; the engine's own when their prefix is written."""
    filters = {"prefix": incomplete, "include_internal": incomplete.startswith("engine:")}
    for row in connection.look_up("engine::functions::list", filters)["functions"]:
        yield str(row["function_id"]), str(row.get("description") or "")


def _workers(connection: Connection) -> Iterator[tuple[str, str]]:
    for row in connection.look_up("engine::workers::list")["workers"]:
        yield str(row["name"]), str(row.get("state") or row.get("status") or "")


def _queues(connection: Connection) -> Iterator[tuple[str, str]]:
    for row in connection.look_up("iii::queue::list")["queues"]:
        yield str(row["name"]), f"{row['ready']} ready, {row['dlq_depth']} dead"


def _configurations(connection: Connection) -> Iterator[tuple[str, str]]:
    for row in connection.look_up("configuration::list")["configurations"]:
        yield str(row["id"]), str(row["description"])


def _traces(connection: Connection) -> Iterator[tuple[str, str]]:
    listed = connection.look_up("engine::traces::list", {"sort_order": "desc", "limit": TRACES})
    for row in listed["spans"]:
        yield str(row["trace_id"]), f"{row['name']} {row['status']}"


def _declared_workers() -> Iterator[tuple[str, str]]:
    """Yield the workers of the nearest iii.toml: their names, and the standard worker or command."""
    import tomllib  # most names come from the engine

    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "iii.toml").is_file():
            try:
                tables = tomllib.loads((folder / "iii.toml").read_text(encoding="utf-8")).get("workers", {})
                yield from ((name, str(table.get("run", "standard worker"))) for name, table in tables.items())
            except (OSError, ValueError, AttributeError):
                pass  # `iii check` says what is wrong with it
            return


def asked(ask: Callable[[Connection], Iterable[tuple[str, str]]]) -> list[tuple[str, str]]:
    """Return what the running engine answers, nothing if there is none or it does not know."""
    try:
        with connect() as connection:
            return list(ask(connection))
    except (IIIError, OSError, KeyError, TypeError):
        return []


def items(pairs: Iterable[tuple[str, str]], incomplete: str) -> list[CompletionItem[str]]:
    """Return the names that begin as written, each once, with the first line of their help."""
    fitting = {name: text for name, text in pairs if name.startswith(incomplete) and name.isprintable()}
    return [CompletionItem(name, help=shown(text.partition("\n")[0]) or None) for name, text in fitting.items()]


def _completing(pairs: Callable[[], Iterable[tuple[str, str]]]) -> Complete:
    return lambda _context, _parameter, incomplete: items(pairs(), incomplete)


# For `shell_complete` of arguments and options
function_names: Complete = lambda _context, _parameter, incomplete: items(  # noqa: E731
    asked(lambda connection: functions(connection, incomplete)), incomplete
)
worker_names = _completing(lambda: asked(_workers) or _declared_workers())
declared_workers = _completing(_declared_workers)
queue_names = _completing(lambda: asked(_queues))
configuration_ids = _completing(lambda: asked(_configurations))
trace_ids = _completing(lambda: asked(_traces))


def standard_workers(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Return the standard workers that the project does not have yet."""
    from iii.engine.config.project import STANDARD_WORKERS  # no other name needs it

    declared = dict(_declared_workers())
    return items(((name, "") for name in STANDARD_WORKERS if name not in declared), incomplete)


# `iii trigger`


def of_trigger(words: list[str], incomplete: str) -> list[CompletionItem[str]]:
    """Return what may follow `words` behind `iii trigger`: a function, its arguments, options and their values."""
    attribute, takes_value = OPTIONS.get(words[-1], ("", False)) if words else ("", False)
    if takes_value:
        return items(asked(_queues), incomplete) if attribute == "enqueue" else []
    if incomplete.startswith("-"):
        return items(((name, "") for name in OPTIONS), incomplete)
    try:
        arguments = parse(words)
    except IIIError:
        return []
    function_id = arguments.function_id
    if function_id is None:
        return items(asked(lambda connection: functions(connection, incomplete)), incomplete)
    given = {key for key, _ in arguments.pairs}
    return items(asked(lambda connection: _arguments(connection, function_id, incomplete, given)), incomplete)


def _arguments(connection: Connection, function_id: str, incomplete: str, given: set[str]) -> Iterator[tuple[str, str]]:
    """Yield `name=` for each argument that is not given yet; behind the `=`, the values that the schema names."""
    info = connection.look_up("engine::functions::info", {"function_id": function_id})
    root = info.get("request_schema")
    key, equals, _ = incomplete.partition("=")
    for name, raw in (resolved(root, root).get("properties") or {}).items():
        schema = resolved(raw, root)
        if not equals and name not in given:
            yield f"{name}=", str(schema.get("description") or type_of(raw, root))
        elif equals and name == key:
            choices = schema.get("enum") or ([True, False] if schema.get("type") == "boolean" else [])
            for choice in choices:
                yield f"{name}={choice if isinstance(choice, str) else json.dumps(choice)}", ""


# The scripts

BASH = """\
# Completion of iii for bash 4.4 or newer. Install it with this line in ~/.bashrc:
#     source <(%(prog_name)s completion bash)
%(complete_func)s() {
    local line=${COMP_LINE:0:$COMP_POINT} word prefix= breaks= type value
    word=${line##*[[:space:]]}
    # bash takes what stands before a colon or an equals sign for another word, and leaves it as it is.
    [[ $COMP_WORDBREAKS == *:* ]] && breaks+=:
    [[ $COMP_WORDBREAKS == *=* ]] && breaks+='='
    [[ -n $breaks ]] && prefix=${word%%"${word##*[$breaks]}"}
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                [[ $value == *= ]] && compopt -o nospace
                printf -v value %%q "${value#"$prefix"}"
                COMPREPLY+=("$value")
                ;;
        esac
    done < <(COMP_LINE=$line %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

ZSH = """\
#compdef %(prog_name)s
# Completion of iii for zsh. Install it with these lines in ~/.zshrc:
#     autoload -Uz compinit && compinit
#     source <(%(prog_name)s completion zsh)
%(complete_func)s() {
    local -a names open response
    local type value text
    response=("${(@f)$(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \\
        %(complete_var)s=zsh_complete ${words[1]} 2>/dev/null)}")
    for type value text in "${response[@]}"; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            plain)
                [[ $text == _ ]] || text=":$text"
                [[ $value == *= ]] && open+=("$value${text#_}") || names+=("$value${text#_}")
                ;;
        esac
    done
    (( $#names )) && _describe -V values names -U
    (( $#open )) && _describe -V arguments open -U -S ''
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

FISH = """\
# Completion of iii for fish. Install it with:
#     %(prog_name)s completion fish > ~/.config/fish/completions/%(prog_name)s.fish
function %(complete_func)s
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp | string collect) \\
        COMP_CWORD=(commandline -ct | string collect) %(prog_name)s 2>/dev/null)
    for completion in $response
        set -l parts (string split -m 1 "," -- $completion)
        switch $parts[1]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
            case plain
                echo $parts[2]
        end
    end
end
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""

HINTS = {
    "bash": "in ~/.bashrc: source <(iii completion bash)",
    "zsh": "in ~/.zshrc, after compinit: source <(iii completion zsh)",
    "fish": "once: iii completion fish > ~/.config/fish/completions/iii.fish",
}


@add_completion_class
class Bash(BashComplete):
    """Takes the line up to the cursor, since bash cuts words at colons."""

    source_template = BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one that is being written, and that one."""
        line = os.environ.get("COMP_LINE")
        if line is None:
            return super().get_completion_args()
        words = split_arg_string(line)
        incomplete = words.pop() if words and not line[-1].isspace() else ""
        return words[1:], incomplete


@add_completion_class
class Zsh(ZshComplete):
    """Names arguments without a space behind them."""

    source_template = ZSH

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Return three lines; `_describe` reads a name up to the first colon that is not escaped."""
        value = str(item.value).replace("\\", "\\\\").replace(":", "\\:")
        return f"{item.type}\n{value}\n{item.help or '_'}"


@add_completion_class
class Fish(FishComplete):
    """Keeps commas in names and texts."""

    source_template = FISH


@click.command("completion")
@click.argument("shell", type=click.Choice(list(HINTS)))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell; its first lines say how to install it."""
    classes: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}
    text = classes[shell](context.find_root().command, {}, "iii", ENVIRONMENT_VARIABLE).source()
    write(text.rstrip("\n"))
    if sys.stdout.isatty():
        write_error(f"install it {HINTS[shell]}")
