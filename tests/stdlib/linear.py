"""Checks that a history of one key's operations is linearizable (after Wing and Gong), by search with memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# When an operation ends whose outcome nobody knows: it may have happened, at any later time, or never.
NEVER = float("inf")


@dataclass(frozen=True)
class Operation:
    """`kind` is get (saw `value`), set (wrote it) or cas (wrote it over `expected`), from `start` to `end`."""

    kind: str
    value: Any
    start: float
    end: float
    expected: Any = None


def is_linearizable(history: list[Operation], initial: Any = None) -> bool:
    """Tell whether some order of the operations, within their times, explains everything that was seen."""
    tried: set[tuple[frozenset[int], Any]] = set()
    pending = [(frozenset(range(len(history))), initial)]
    while pending:
        rest, value = pending.pop()
        if all(history[index].end == NEVER for index in rest):
            return True
        if (rest, value) in tried:
            continue
        tried.add((rest, value))
        first_end = min(history[index].end for index in rest)
        for index in rest:
            operation = history[index]
            if operation.start <= first_end and _explains(operation, value):
                after = value if operation.kind == "get" else operation.value
                pending.append((rest - {index}, after))
    return False


def _explains(operation: Operation, value: Any) -> bool:
    if operation.kind == "get":
        return bool(operation.value == value)
    return operation.kind == "set" or operation.expected == value
