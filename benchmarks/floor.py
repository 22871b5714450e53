"""The floor: a relay between two children that copies bytes with `os.read` and `os.write` and knows no JSON.

A call through the engine crosses the same four pipes, so what the engine adds is its figure over this one.
Run as a program by the setups: `floor.py CALLER... -- CALLEE...`. For small lines only: its writes block.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys

READ_SIZE = 65536


def relay(routes: dict[int, int]) -> None:
    """Copy from each key's descriptor to its value's until one side ends."""
    poll = select.poll()
    for source in routes:
        poll.register(source, select.POLLIN)
    while True:
        for source, _ in poll.poll():
            data = os.read(source, READ_SIZE)
            if not data:
                return
            os.write(routes[source], data)


def main(arguments: list[str]) -> None:
    """Join the two programs named on the command line."""
    split = arguments.index("--")
    caller, callee = (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        for command in (arguments[:split], arguments[split + 1 :])
    )
    pipes = (caller.stdin, caller.stdout, callee.stdin, callee.stdout)
    to_caller, from_caller, to_callee, from_callee = (pipe.fileno() for pipe in pipes if pipe is not None)
    relay({from_caller: to_callee, from_callee: to_caller})


if __name__ == "__main__":
    main(sys.argv[1:])
