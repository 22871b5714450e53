"""The arguments of `iii trigger`, parsed by hand because a parser library costs more than the call.

Values stay as written; `payload` turns them into JSON. Part of the short path.
"""

from __future__ import annotations

from cli.client.connection import address_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# option -> (attribute, takes a value)
OPTIONS = {
    "--json": ("json", True),
    "--void": ("void", False),
    "--enqueue": ("enqueue", True),
    "--action": ("action", True),
    "--timeout-ms": ("timeout_ms", True),
    "--metadata": ("metadata", True),
    "--namespace": ("namespace", True),
    "-n": ("namespace", True),
    "--engine": ("engine", True),
    "--address": ("address", True),
    "--port": ("port", True),
    "--watch": ("watch", False),
    "--raw": ("raw", False),
    "--help": ("help", False),
    "-h": ("help", False),
}


class Arguments:
    """The words after `iii trigger`, by option; texts are not yet read as JSON."""

    __slots__ = ("function_id", "pairs", *sorted({attribute for attribute, _ in OPTIONS.values()}))

    function_id: str | None
    pairs: list[tuple[str, str]]
    json: str | None
    enqueue: str | None
    action: str | None
    timeout_ms: str | None
    metadata: str | None
    namespace: str | None
    engine: str | None
    address: str | None
    port: str | None
    void: bool
    watch: bool
    raw: bool
    help: bool

    def __init__(self) -> None:
        self.function_id = None
        self.pairs = []
        for attribute, takes_value in OPTIONS.values():
            setattr(self, attribute, None if takes_value else False)


def parse(words: list[str]) -> Arguments:
    """Return the parsed `words`. After `--` nothing is an option. Raises UsageError."""
    arguments = Arguments()
    remaining = iter(words)
    for word in remaining:
        if word == "--":
            for literal in remaining:
                _add_word(arguments, literal)
        elif word.startswith("-") and word != "-":
            _add_option(arguments, word, remaining)
        else:
            _add_word(arguments, word)
    arguments.engine = address_from(arguments.engine, arguments.address, arguments.port)
    return arguments


def _add_option(arguments: Arguments, word: str, remaining: Iterator[str]) -> None:
    name, equals, value = word.partition("=")
    if name not in OPTIONS:
        from iii.suggestions import nearest_names  # only a failure pays for it

        names = nearest_names(name, OPTIONS, cutoff=0.7)
        raise usage_error(
            f"unknown option {name}", f"did you mean {names[0]}?" if names else "see `iii trigger --help`"
        )
    attribute, takes_value = OPTIONS[name]
    if not takes_value:
        if equals:
            raise usage_error(f"{name} takes no value")
        setattr(arguments, attribute, True)
        return
    if not equals:
        following = next(remaining, None)
        if following is None:
            raise usage_error(f"{name} needs a value")
        value = following
    setattr(arguments, attribute, value)


def _add_word(arguments: Arguments, word: str) -> None:
    if arguments.function_id is None:
        arguments.function_id = word
    elif word.startswith("{") and arguments.json is None:
        arguments.json = word
    else:
        key, equals, value = word.partition("=")
        if not equals:
            raise usage_error(f"expected key=value, got `{word}`")
        if not key:
            raise usage_error(f"a key must not be empty, got `{word}`")
        arguments.pairs.append((key, value))


def usage_error(message: str, hint: str = "") -> Exception:
    """Return the error for a command that is written wrong. The short path does not load its class before."""
    from cli.client.errors import UsageError  # only a failure pays for it

    return UsageError(message, hint)
