"""In which order workers start and stop, from their `after` lists, and how many at a time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from iii.engine.config.spec import WorkerSpec

# Interpreters that all start at once are slower than two at a time, and starve the workers that serve meanwhile.
AT_A_TIME = 2


def with_dependencies(names: Iterable[str], workers: Mapping[str, WorkerSpec]) -> set[str]:
    """Return the names and everything they come after, at any distance.
    Raises KeyError for an unknown name.
    """
    found: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue += workers[name].after
    return found


def dependents_first(workers: Mapping[str, WorkerSpec]) -> list[list[str]]:
    """Return the workers in groups to stop one after another:
    nobody stops before those who come after him.
    """
    groups: list[list[str]] = []
    left = dict(workers)
    while left:
        needed = {name for spec in left.values() for name in spec.after}
        # `or left`: a circle, which the configuration refuses; stopping must end all the same.
        group = [name for name in left if name not in needed] or list(left)
        groups.append(group)
        for name in group:
            del left[name]
    return groups
