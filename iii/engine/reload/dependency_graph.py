"""Which workers a changed file concerns, and when its saves are over, so that they are reloaded. Pure.

Content decides: a file whose digest is the same as before has not changed, whatever its times say. A file that vanishes
changes nothing either: the code that runs is better than none. A file that comes back is a change: a worker may have
failed for the lack of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct, field

# Seconds without a write that end a save. Two writes of one save are closer; with the watcher's own 20 to 40 ms a new
# generation starts within 100 ms.
SAVE_DEBOUNCE = 0.06
# Seconds after which a worker is reloaded although saves keep coming. They double while saves keep coming: a generator
# that rewrites files for seconds costs a few reloads, not one every half second.
MAX_DEBOUNCE = 0.5


class _Sources(Struct):
    files: frozenset[str] = frozenset()
    globs: tuple[re.Pattern[str], ...] = ()


class ReloadGraph:
    """Files -> workers. Paths are absolute, except those that globs are matched with: relative to `root`."""

    def __init__(self, root: str) -> None:
        self._prefix = root.rstrip("/") + "/"
        self._sources: dict[str, _Sources] = {}
        self._digests: dict[str, str] = {}
        self._overtaken: dict[str, dict[str, str]] = {}  # by worker: what `overtaken` has returned, with its digest

    @property
    def files(self) -> frozenset[str]:
        """Every file that some worker consists of."""
        return frozenset().union(*(sources.files for sources in self._sources.values()))

    def files_of(self, worker: str) -> frozenset[str]:
        """Return the files that this worker consists of, as far as it has reported them."""
        return self._sources[worker].files if worker in self._sources else frozenset()

    def set_files(self, worker: str, files: frozenset[str]) -> None:
        self._sources.setdefault(worker, _Sources()).files = files

    def set_globs(self, worker: str, globs: tuple[re.Pattern[str], ...]) -> None:
        self._sources.setdefault(worker, _Sources()).globs = globs

    def remove(self, worker: str) -> None:
        self._sources.pop(worker, None)
        self._overtaken.pop(worker, None)

    def workers_of(self, path: str) -> frozenset[str]:
        relative = path.removeprefix(self._prefix)
        return frozenset(
            worker
            for worker, sources in self._sources.items()
            if path in sources.files or any(glob.match(relative) for glob in sources.globs)
        )

    def learn(self, digests: Mapping[str, str | None]) -> None:
        """Record what files hold now, to compare with later; None stands for a file that is gone."""
        for path, digest in digests.items():
            if digest is None:
                self._digests.pop(path, None)
            else:
                self._digests[path] = digest

    def overtaken(self, worker: str, digests: Mapping[str, str | None]) -> tuple[str, ...]:
        """Return the files of a worker's report that held something else already when it came; None: were not there.

        Their change was seen before it was known that they concern the worker. Each content is returned once.
        """
        known = self._overtaken.setdefault(worker, {})
        late = []
        for path, digest in digests.items():
            now = self._digests.get(path)
            if now is None or now == digest:
                known.pop(path, None)
            elif known.get(path) != now:
                known[path] = now
                late.append(path)
        return tuple(late)

    def changed_among(self, digests: Mapping[str, str | None]) -> tuple[str, ...]:
        """Return the files whose digest is another than the recorded one."""
        return tuple(
            path for path, digest in digests.items() if digest is not None and self._digests.get(path) != digest
        )

    def observe(self, digests: Mapping[str, str | None]) -> dict[str, tuple[str, ...]]:
        """Return, per worker, which of these files have changed; None stands for a file that is gone."""
        changed = self.changed_among(digests)
        self.learn(digests)
        concerned: dict[str, tuple[str, ...]] = {}
        for path in changed:
            for worker in self.workers_of(path):
                concerned[worker] = (*concerned.get(worker, ()), path)
        return concerned


class _Saves(Struct):
    first: float
    last: float
    files: dict[str, None] = field(default_factory=dict)  # an ordered set


class Debounce:
    """Collects the changes of each worker until its save is over."""

    def __init__(self) -> None:
        self._pending: dict[str, _Saves] = {}
        self._doubled: dict[str, tuple[float, float]] = {}  # worker -> (longest debounce, since when)

    def note(self, worker: str, files: tuple[str, ...], now: float) -> None:
        saves = self._pending.setdefault(worker, _Saves(now, now))
        saves.last = now
        saves.files.update(dict.fromkeys(files))

    def due(self, now: float) -> dict[str, tuple[str, ...]]:
        """Return the workers to reload now, with the files that changed, and forget them."""
        due = {worker: saves for worker, saves in self._pending.items() if self._due_at(worker) <= now}
        for worker, saves in due.items():
            if now - saves.last < SAVE_DEBOUNCE:  # saves keep coming
                self._doubled[worker] = (self._longest(worker, saves.first) * 2, now)
            else:
                self._doubled.pop(worker, None)
            del self._pending[worker]
        return {worker: tuple(saves.files) for worker, saves in due.items()}

    def next_at(self) -> float | None:
        """Return when a worker will be due, None if nothing is pending."""
        return min((self._due_at(worker) for worker in self._pending), default=None)

    def _due_at(self, worker: str) -> float:
        saves = self._pending[worker]
        return min(saves.last + SAVE_DEBOUNCE, saves.first + self._longest(worker, saves.first))

    def _longest(self, worker: str, now: float) -> float:
        """Return how long saves of the worker may keep a reload waiting; a doubled time holds for as long as it is."""
        longest, since = self._doubled.get(worker, (MAX_DEBOUNCE, now))
        return longest if now - since < longest else MAX_DEBOUNCE
