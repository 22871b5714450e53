"""The spans of one trace as a tree, and spans grouped by an attribute. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from stdlib_workers.observability.records.spans import SpanRow, attributes_of, shape_from

# Each level costs two of JSON's; the wire refuses what is deeper than 64. Deeper spans follow as the last level's.
MAX_DEPTH = 24
# Fan-out of the engine that reached nobody says nothing.
_SILENT = ("state_triggers", "stream_triggers")


class Collapse(NamedTuple):
    """Spans of this name (and service, None: any) are left out, their children move up."""

    name: str
    service: str | None = None

    def fits(self, row: SpanRow) -> bool:
        """Tell whether a span is meant."""
        return fnmatchcase(row.name, self.name) and self.service in (None, row.service)


def tree_from(rows: Iterable[SpanRow], collapse: Sequence[Collapse] = ()) -> list[dict[str, Any]]:
    """Return the roots, each with its `children`; both in the order of their start."""
    kept = {row.span: row for row in sorted(rows, key=lambda row: (row.start, row.span))}
    parents = _parents_of(kept, collapse)
    shapes: dict[str, dict[str, Any]] = {id: {**shape_from(kept[id]), "children": []} for id in parents}
    depths = _depths(parents)
    roots: list[dict[str, Any]] = []
    for id in sorted(parents, key=lambda id: depths[id]):
        above = _parent_at(id, parents, depths)
        (roots if above is None else shapes[above]["children"]).append(shapes[id])
    for shape in shapes.values():
        shape["children"].sort(key=_start)
    return sorted(roots, key=_start)


def _start(shape: dict[str, Any]) -> tuple[int, str]:
    return shape["start_time_unix_nano"], shape["span_id"]


def _parents_of(kept: dict[str, SpanRow], collapse: Sequence[Collapse]) -> dict[str, str | None]:
    """Return the parent of every span that stays, None for a root."""
    gone = {id for id, row in kept.items() if any(rule.fits(row) for rule in collapse)}
    parents = {id: _climb(id, kept, gone) for id in kept if id not in gone}
    children = Counter(parents.values())
    silent = [id for id in parents if kept[id].name in _SILENT and not children[id]]
    while silent:
        above = parents.pop(silent.pop())
        children[above] -= 1
        if above is not None and kept[above].name in _SILENT and not children[above]:
            silent.append(above)
    return parents


def _climb(id: str, kept: dict[str, SpanRow], gone: set[str]) -> str | None:
    passed = set()
    above = kept[id].parent
    while above in gone and above not in passed:
        passed.add(above)
        above = kept[above].parent
    return above if above in kept and above not in gone else None


def _depths(parents: dict[str, str | None]) -> dict[str, int]:
    """Return how deep each span lies. A ring of parents is opened: one of it becomes a root."""
    depths: dict[str, int] = {}
    for id in parents:
        path: dict[str, None] = {}
        at: str | None = id
        while at is not None and at not in depths:
            path[at] = None
            if parents[at] in path:
                parents[at] = None
            at = parents[at]
        for step in reversed(path):
            above = parents[step]
            depths[step] = 0 if above is None else depths[above] + 1
    return depths


def _parent_at(id: str, parents: dict[str, str | None], depths: dict[str, int]) -> str | None:
    above = parents[id]
    while above is not None and depths[above] >= MAX_DEPTH:
        above = parents[above]
    return above


class _Group:
    """What is known of one value so far."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.label: str | None = None
        self.traces: set[str] = set()
        self.count = 0
        self.errors = 0
        self.first = 2**63
        self.last = 0

    def add(self, row: SpanRow, label: str | None) -> None:
        self.label = self.label or label
        self.traces.add(row.trace)
        self.count += 1
        self.errors += row.status == "error"
        self.first = min(self.first, row.start)
        self.last = max(self.last, row.finish or row.start)

    def shape(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "label": self.label,
            "trace_ids": sorted(self.traces),
            "span_count": self.count,
            "first_seen_ms": self.first // 1_000_000,
            "last_seen_ms": self.last // 1_000_000,
            "duration_ms": (self.last - self.first) / 1e6,
            "error_count": self.errors,
        }


def groups_from(rows: Iterable[SpanRow], attribute: str, label_attribute: str | None) -> list[dict[str, Any]]:
    """Return a group for every value of `attribute`, the one that began last first."""
    groups: dict[str, _Group] = {}
    for row in rows:
        attributes = attributes_of(row)
        value = attributes.get(attribute)
        if value is not None:
            group = groups.setdefault(value, _Group(value))
            group.add(row, attributes.get(label_attribute) if label_attribute else None)
    newest_first = sorted(groups.values(), key=lambda group: (-group.first, group.value))
    return [group.shape() for group in newest_first]
