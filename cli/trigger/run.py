"""`iii trigger FUNCTION [k=v...]`: one call from the terminal, for little more than the start of Python.

Imports only sys, os, time and C modules; anything else is imported when a call needs it.
"""

from __future__ import annotations

import sys
import time

from cli.client.connection import WINDOW, Connection, connect
from cli.text.output import shown_json, write
from cli.trigger.arguments import Arguments, parse, usage_error
from cli.trigger.payload import build, parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Seconds between two questions for the worker's generation, while nothing has been saved.
RELOAD_POLL_INTERVAL = 0.25


def run(words: list[str]) -> int:
    """Make the call that `words` describe and print its result."""
    arguments = parse(words)
    if arguments.help or arguments.function_id is None:
        from cli.trigger.help import run as show_help  # not on the short path

        return show_help(arguments)
    base: Any = {}
    if arguments.json is not None:
        base = parse_json(_input() if arguments.json == "-" else arguments.json, "--json")
    fields = _fields(arguments)
    timeout_ms = None
    if (text := arguments.timeout_ms) is not None:
        if not (text.isascii() and text.isdigit() and 0 < int(text) <= 86_400_000):
            raise usage_error(f"--timeout-ms must be from 1 to 86400000, got {text}")
        timeout_ms = int(text)
    with connect(arguments.engine) as connection:
        _call(connection, arguments, base, fields, timeout_ms)
        if arguments.watch:
            while True:
                _wait_for_reload(connection, arguments.function_id)
                _call(connection, arguments, base, fields, timeout_ms)
    return 0


def _call(
    connection: Connection, arguments: Arguments, base: Any, fields: dict[str, Any], timeout_ms: int | None
) -> None:
    function_id = arguments.function_id or ""
    schema = None
    if arguments.pairs:
        # An unknown function has no description; the call itself reports it.
        schema = (connection.function_info(function_id, arguments.namespace).get("result") or {}).get("request_schema")
    data = build(arguments.pairs, base, schema)
    if arguments.void:
        message = {"type": "invokefunction", "function_id": function_id, "data": data}
        connection.send(message | fields)
        connection.settle()
        return

    has_progress = False

    def show(message: dict[str, Any]) -> None:
        # Progress goes to a terminal only, on a line of its own that is written over.
        if "item" in message:
            write(shown_json(message["item"], raw=arguments.raw))
            sys.stdout.flush()
        elif sys.stderr.isatty():
            nonlocal has_progress
            has_progress = True
            sys.stderr.write(f"\r\x1b[2K{progress_line(message.get('progress') or {})}\r")
            sys.stderr.flush()

    try:
        answer = connection.request(function_id, data, timeout_ms, show, stream=True, window=WINDOW, **fields)
    finally:
        if has_progress:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
    if answer.get("error"):
        from cli.client.error_hints import explained  # only a failure pays for it
        from cli.client.errors import report

        info = connection.function_info(function_id, arguments.namespace).get("result") or {}
        error = explained(connection.request, function_id, answer["error"], info)
        if not arguments.watch:
            raise error
        report(error)
    elif answer.get("result") is not None:
        write(shown_json(answer["result"], raw=arguments.raw))


def _input() -> str:
    """Return stdin as text: UTF-8 with or without a byte order mark, UTF-16 with one. Raises UsageError."""
    data = sys.stdin.buffer.read()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise usage_error(f"--json -: byte {error.start + 1} of the input is not {encoding.upper()}") from None


def progress_line(progress: dict[str, Any]) -> str:
    """Return `[#####.....] 50% a word about it`, or only how much is done if the function does not say of how much."""
    done, total = progress.get("done"), progress.get("total")
    text = "".join(letter for letter in str(progress.get("message") or "") if letter.isprintable())
    if not isinstance(done, int | float) or not isinstance(total, int | float) or total <= 0:
        return f"{done} {text}".strip()
    share = min(max(done / total, 0.0), 1.0)
    filled = round(share * 20)
    return f"[{'#' * filled}{'.' * (20 - filled)}] {share:.0%} {text}".strip()


def _fields(arguments: Arguments) -> dict[str, Any]:
    if sum([arguments.void, arguments.enqueue is not None, arguments.action is not None]) > 1:
        raise usage_error("--void, --enqueue and --action exclude each other")
    fields: dict[str, Any] = {}
    if arguments.void:
        fields["action"] = {"type": "void"}
    elif arguments.enqueue is not None:
        fields["action"] = {"type": "enqueue", "queue": arguments.enqueue}
    elif arguments.action is not None and (action := parse_json(arguments.action, "--action")) is not None:
        fields["action"] = action
    if arguments.metadata is not None:
        fields["metadata"] = parse_json(arguments.metadata, "--metadata")
    if arguments.namespace is not None:
        fields["namespace"] = arguments.namespace
    return fields


def _wait_for_reload(connection: Connection, function_id: str) -> None:
    """Return once the function's worker is ready in another generation than now.

    The engine is asked again and again: a reload that leaves the list of functions as it was fires no event, but it
    always raises the generation.
    """
    before = _generation_of(connection, function_id)
    while True:
        time.sleep(RELOAD_POLL_INTERVAL)
        now = _generation_of(connection, function_id)
        if now is not None and now != before:
            return


def _generation_of(connection: Connection, function_id: str) -> Any:
    """Return a value that changes when the function's worker reloads, None while no worker provides the function."""
    info = connection.function_info(function_id).get("result")
    if not info:
        return None
    rows = connection.look_up("engine::workers::list")["workers"]
    named = [row for row in rows if row.get("name") == info.get("worker_name")]
    return sorted((row.get("instance") or 0, row.get("generation") or 0, row.get("pid") or 0) for row in named)
