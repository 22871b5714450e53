"""The minimal callee where no C compiler is present: the same words on the same pipes as native/callee.c."""

from __future__ import annotations

import json
import os

REGISTER = {"runtime": "python", "version": "1", "name": "callee", "os": "linux", "pid": os.getpid()}
FIRST_WORDS: list[dict[str, object]] = [
    {
        "type": "invokefunction",
        "function_id": "engine::workers::register",
        "data": REGISTER,
        "action": {"type": "void"},
    },
    {"type": "registerfunction", "id": "bench::echo"},
    {"type": "ready", "vouches": True},
]


def answer(line: bytes) -> bytes:
    """Return the result line of a call, nothing for any other message."""
    message = json.loads(line)
    if message["type"] != "invokefunction" or "invocation_id" not in message:
        return b""
    head = {
        "type": "invocationresult",
        "invocation_id": message["invocation_id"],
        "function_id": "bench::echo",
    }
    return json.dumps({**head, "result": message["data"]}, separators=(",", ":")).encode() + b"\n"


def write(data: bytes) -> None:
    """Write all of it."""
    while data:
        data = data[os.write(1, data) :]


def main() -> None:
    """Answer until stdin ends."""
    write(b"".join(json.dumps(word, separators=(",", ":")).encode() + b"\n" for word in FIRST_WORDS))
    rest = b""
    while data := os.read(0, 65536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            write(answer(line))


if __name__ == "__main__":
    main()
