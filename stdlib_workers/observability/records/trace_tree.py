"""The spans of one trace as a tree, and spans grouped by an attribute. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from stdlib_workers.observability.records.spans import MILLISECOND, SpanRow, attributes_of, span_json

# A level of spans is two of JSON, and the wire takes 64. Deeper spans become children of the last level.
MAX_DEPTH = 24
# Spans of the fan-out of an event: without children, no trigger was bound to it.
_FAN_OUT = ("state_triggers", "stream_triggers")


class Collapse(NamedTuple):
    """A rule: spans of this name (and service, None: any) are left out, and their children move up."""

    name: str
    service: str | None = None


def tree_from(rows: Iterable[SpanRow], collapse: Sequence[Collapse] = ()) -> list[dict[str, Any]]:
    """Return the roots, each with its `children`, as JSON; roots and children in the order of their start."""
    spans = {row.span: row for row in sorted(rows, key=lambda row: (row.start, row.span))}
    parents = _parents_of(spans, collapse)
    nodes: dict[str, dict[str, Any]] = {id: {**span_json(spans[id]), "children": []} for id in parents}
    depths = _depths(parents)
    roots: list[dict[str, Any]] = []
    # `parents` is in the order of the spans' start, so every list of children is as well.
    for id in parents:
        parent = parents[id]
        while parent is not None and depths[parent] >= MAX_DEPTH:
            parent = parents[parent]
        (roots if parent is None else nodes[parent]["children"]).append(nodes[id])
    return roots


def _parents_of(spans: dict[str, SpanRow], collapse: Sequence[Collapse]) -> dict[str, str | None]:
    """Return the parent of every span that is shown, None for a root."""
    left_out = {
        id
        for id, row in spans.items()
        if any(fnmatchcase(row.name, rule.name) and rule.service in (None, row.service) for rule in collapse)
    }
    parents: dict[str, str | None] = {}
    for id, row in spans.items():
        if id in left_out:
            continue
        ancestor, passed = row.parent, set()
        while ancestor in left_out and ancestor not in passed:
            passed.add(ancestor)
            ancestor = spans[ancestor].parent
        parents[id] = ancestor if ancestor in spans and ancestor not in left_out else None
    children = Counter(parents.values())
    empty = [id for id in parents if spans[id].name in _FAN_OUT and not children[id]]
    while empty:
        parent = parents.pop(empty.pop())
        children[parent] -= 1
        if parent is not None and spans[parent].name in _FAN_OUT and not children[parent]:
            empty.append(parent)
    return parents


def _depths(parents: dict[str, str | None]) -> dict[str, int]:
    """Return how deep each span lies. Where parents form a ring, one of these spans becomes a root."""
    depths: dict[str, int] = {}
    for id in parents:
        path: dict[str, None] = {}
        ancestor: str | None = id
        while ancestor is not None and ancestor not in depths:
            path[ancestor] = None
            if parents[ancestor] in path:
                parents[ancestor] = None
            ancestor = parents[ancestor]
        for step in reversed(path):
            parent = parents[step]
            depths[step] = 0 if parent is None else depths[parent] + 1
    return depths


def groups_from(rows: Iterable[SpanRow], attribute: str, label_attribute: str | None) -> list[dict[str, Any]]:
    """Return a group for every value of `attribute`, as JSON; the group that began last comes first."""
    groups: dict[str, list[SpanRow]] = {}
    labels: dict[str, str | None] = {}
    for row in rows:
        attributes = attributes_of(row)
        value = attributes.get(attribute)
        if value is not None:
            groups.setdefault(value, []).append(row)
            label = attributes.get(label_attribute) if label_attribute else None
            labels[value] = labels.get(value) or label
    periods = {
        value: (min(row.start for row in spans), max(row.finish or row.start for row in spans))
        for value, spans in groups.items()
    }
    return [
        {
            "value": value,
            "label": labels[value],
            "trace_ids": sorted({row.trace for row in groups[value]}),
            "span_count": len(groups[value]),
            "first_seen_ms": first // MILLISECOND,
            "last_seen_ms": last // MILLISECOND,
            "duration_ms": (last - first) / MILLISECOND,
            "error_count": sum(row.status == "error" for row in groups[value]),
        }
        for value, (first, last) in sorted(periods.items(), key=lambda item: (-item[1][0], item[0]))
    ]
