"""In which order workers start and stop, from their `after` lists, and how many start at a time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from iii.engine.config.spec import WorkerSpec

# Interpreters that all start at once are slower than two at a time, and slow down the workers that serve already.
AT_A_TIME = 2


def with_dependencies(names: Iterable[str], workers: Mapping[str, WorkerSpec]) -> set[str]:
    """Return the names and every worker they come after, directly or not. Raises KeyError for an unknown name."""
    wanted: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name not in wanted:
            wanted.add(name)
            queue += workers[name].after
    return wanted


def dependents_first(workers: Mapping[str, WorkerSpec]) -> list[list[str]]:
    """Return the workers in groups to stop one after another: a worker stops after those that depend on it."""
    groups: list[list[str]] = []
    left = dict(workers)
    while left:
        needed = {name for spec in left.values() for name in spec.after}
        # `or left`: a circle. The configuration refuses one, but stopping must end all the same.
        group = [name for name in left if name not in needed] or list(left)
        groups.append(group)
        for name in group:
            del left[name]
    return groups
