"""Checks that a history of one key's operations is linearizable: just-in-time linearization after Lowe.

Every write of a history has a value of its own, so a write whose outcome nobody knows matters only if its value was
seen: the others are left out, which keeps long histories with many crashes quick to check. Where it is known by when
such an operation must have happened, if it has, `is_certain=False` says so and keeps the check exact for deletions too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# When an operation ends whose outcome nobody knows: it may have happened, at any later time, or never.
NEVER = float("inf")
# What may be the case: the value now, and which of the running operations have taken effect already.
Config = tuple[Any, frozenset[int]]


@dataclass(frozen=True)
class Operation:
    """`kind` is get (saw `value`), set (wrote it) or cas (wrote it over `expected`), from `start` to `end`.

    One that is not `is_certain` took effect in that time or never.
    """

    kind: str
    value: Any
    start: float
    end: float
    expected: Any = None
    is_certain: bool = True


def is_linearizable(history: Iterable[Operation], initial: Any = None) -> bool:
    """Tell whether some order of the operations, within their times, explains everything that was seen."""
    operations = _relevant(list(history))
    moments = sorted(
        [(operation.start, 0, index) for index, operation in enumerate(operations)]
        + [(operation.end, 1, index) for index, operation in enumerate(operations) if operation.end != NEVER]
    )
    running: dict[int, Operation] = {}
    possible: set[Config] = {(initial, frozenset())}
    for _, is_end, index in moments:
        if not is_end:
            running[index] = operations[index]
            continue
        is_open = not operations[index].is_certain
        reached = _reachable(possible, running)
        possible = {(value, done - {index}) for value, done in reached if is_open or index in done}
        del running[index]
        if not possible:
            return False
    return True


def _relevant(history: list[Operation]) -> list[Operation]:
    seen = {operation.value for operation in history if operation.kind == "get"}
    seen |= {operation.expected for operation in history if operation.kind == "cas"}
    return [operation for operation in history if operation.end != NEVER or operation.value in seen]


def _reachable(possible: set[Config], running: dict[int, Operation]) -> set[Config]:
    """Return what may be the case after any of the running operations have taken effect, in any order."""
    found, fresh = set(possible), list(possible)
    while fresh:
        value, done = fresh.pop()
        for index, operation in running.items():
            if index in done or not _explains(operation, value):
                continue
            following = (value if operation.kind == "get" else operation.value, done | {index})
            if following not in found:
                found.add(following)
                fresh.append(following)
    return found


def _explains(operation: Operation, value: Any) -> bool:
    if operation.kind == "get":
        return bool(operation.value == value)
    return operation.kind == "set" or operation.expected == value
