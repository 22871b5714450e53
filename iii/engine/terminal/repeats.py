"""Says a thing once: reports that come again within a window are counted, and told as one line when it ends. Pure.

A report that goes on coming is told less and less often: its window doubles each time. Reports that differ, but come in
a flood from one worker, are counted together, so that a worker can neither flood the screen nor fill the memory.
"""

from __future__ import annotations

from collections.abc import Hashable

from iii.engine.supervision.reports import Repeated, Report

FIRST_WINDOW = 10.0  # seconds; a loop that fails is told at once, then six times in the first minute
MAX_WINDOW = 600.0  # seconds
MAX_DISTINCT = 20  # reports of one group within a window; more are counted together
MAX_GROUPS = 200  # whoever connects chooses a name, which is the group: more of them share one


class _Entry:
    """One report that was shown, and how often it has come since."""

    __slots__ = ("count", "group", "is_others", "report", "since", "until", "window")

    def __init__(self, report: Report, group: Hashable, now: float, *, is_others: bool) -> None:
        self.report = report
        self.group = group
        self.is_others = is_others
        self.window = FIRST_WINDOW
        self.since, self.until = now, now + FIRST_WINDOW
        self.count = 0


class Repeats:
    """The reports of the present windows. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}
        self._groups: dict[Hashable, int] = {}  # how many entries each group has

    @property
    def due(self) -> float | None:
        """When `take` has something to do, None for never."""
        return min((entry.until for entry in self._entries.values()), default=None)

    def is_new(self, report: Report, key: Hashable, group: Hashable, now: float) -> bool:
        """Return whether to show the report; count it otherwise. Reports of one `key` are the same."""
        if (entry := self._entries.get(key)) is not None:
            entry.count += 1
            return False
        if group not in self._groups and len(self._groups) >= MAX_GROUPS:
            group = None
        size = self._groups.get(group, 0)
        if size < MAX_DISTINCT:
            self._add(key, _Entry(report, group, now, is_others=False))
            return True
        others = self._entries.get((group, "others"))
        if others is None:
            others = self._add((group, "others"), _Entry(report, group, now, is_others=True))
        others.count += 1
        return False

    def take(self, now: float, *, everything: bool = False) -> list[Repeated]:
        """Return what came again in the windows that have ended; `everything`: in all of them."""
        repeated = []
        for key, entry in list(self._entries.items()):
            if entry.until > now and not everything:
                continue
            if not entry.count:
                self._remove(key, entry)
                continue
            repeated.append(Repeated(entry.report, entry.count, now - entry.since, entry.is_others))
            entry.window = min(entry.window * 2, MAX_WINDOW)
            entry.since, entry.until, entry.count = now, now + entry.window, 0
        return repeated

    def _add(self, key: Hashable, entry: _Entry) -> _Entry:
        self._entries[key] = entry
        self._groups[entry.group] = self._groups.get(entry.group, 0) + 1
        return entry

    def _remove(self, key: Hashable, entry: _Entry) -> None:
        del self._entries[key]
        self._groups[entry.group] -= 1
        if not self._groups[entry.group]:
            del self._groups[entry.group]
