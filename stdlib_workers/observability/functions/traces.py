"""`engine::traces::*`: payload in, result out."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from iii import InvocationError
from stdlib_workers.observability.ingest.pipeline import Pipeline
from stdlib_workers.observability.records.spans import SpanRow, attributes_of, shape_from
from stdlib_workers.observability.records.trace_tree import Collapse, groups_from, tree_from
from stdlib_workers.observability.store import span_table
from stdlib_workers.observability.store.archive import Archive
from stdlib_workers.observability.store.query_params import QueryParams
from stdlib_workers.observability.store.trace_query import trace_query_from

_TAGS = ("iii.session.id", "iii.session.name", "iii.message.id")
MAX_LIMIT = 10_000
# What an answer may hold: the wire's limit is 16 MiB, and every text may grow by escapes.
MAX_ANSWER_BYTES = 6_000_000


class Storage:
    """The part `storage` of every answer about traces."""

    def __init__(self, archive: Archive, pipeline: Pipeline, max_bytes: int) -> None:
        self._archive = archive
        self._pipeline = pipeline
        self._max_bytes = max_bytes

    async def shape(self) -> dict[str, Any]:
        """Return how the archive is and what it has lost."""
        dropped, error = self._pipeline.dropped, self._pipeline.last_error
        return {
            "archive": "healthy" if error is None else "degraded",
            "completeness": "partial" if dropped else "complete",
            "known_dropped_spans": dropped,
            "physical_bytes": await self._archive.used(),
            "max_disk_bytes": self._max_bytes,
            "last_error": error,
        }


class TraceFunctions:
    """All of them over one archive."""

    def __init__(
        self, archive: Archive, storage: Storage, collapse: Sequence[Collapse], clock: Callable[[], int]
    ) -> None:
        self._archive = archive
        self._storage = storage
        self._collapse = collapse
        self._clock = clock

    async def list(self, payload: Any) -> dict[str, Any]:
        """List spans: the roots of traces, or all spans that fit."""
        query = trace_query_from(payload)
        bounded = query._replace(limit=min(query.limit, MAX_LIMIT))
        now = self._clock()
        rows, total = await self._archive.run(lambda connection: span_table.find(connection, bounded, now))
        rows = _within(rows)
        return {
            "spans": await self._with_tags(rows),
            "total": total,
            "offset": query.offset,
            "limit": query.limit,
            "storage": await self._storage.shape(),
        }

    async def _with_tags(self, rows: Sequence[SpanRow]) -> builtins.list[dict[str, Any]]:
        traces = sorted({row.trace for row in rows})
        tags: dict[str, dict[str, str]] = {}
        # SQLite takes a bounded number of values in one statement.
        for start in range(0, len(traces), 500):
            part = traces[start : start + 500]
            for row in await self._archive.run(partial(span_table.tagged, traces=part)):
                tags.setdefault(row.trace, {}).update(_tags_of(row))
        return [
            {**shape_from(row), "trace_tags": tags[row.trace]} if tags.get(row.trace) else shape_from(row)
            for row in rows
        ]

    async def tree(self, payload: Any) -> dict[str, Any]:
        """Return one trace as a tree."""
        trace_id = QueryParams("engine::traces::tree", payload).required("trace_id")
        rows = await self._archive.run(lambda connection: span_table.trace(connection, trace_id))
        return {"roots": tree_from(_within(rows), self._collapse), "storage": await self._storage.shape()}

    async def group_by(self, payload: Any) -> dict[str, Any]:
        """Group spans by the value of an attribute."""
        asking = QueryParams("engine::traces::group_by", payload)
        attribute, label = asking.required("attribute"), asking.text("label_attribute")
        since, internal = asking.nanoseconds("since_ms") or 0, asking.flag("include_internal")
        limit = asking.count("limit", 100)
        rows = await self._archive.run(
            lambda connection: span_table.with_attribute(connection, attribute, since, include_internal=internal)
        )
        groups = groups_from(rows, attribute, label)[:limit]
        return {"groups": groups, "storage": await self._storage.shape()}

    async def clear(self, _: Any) -> dict[str, Any]:
        """Forget all spans."""
        try:
            await self._archive.run(span_table.clear)
        except InvocationError as error:
            raise InvocationError("trace_storage_clear_failed", error.message) from None
        return {"success": True}


def _tags_of(row: SpanRow) -> dict[str, str]:
    return {name: value for name, value in attributes_of(row).items() if name.startswith("iii.tag.") or name in _TAGS}


def _within(rows: Sequence[SpanRow]) -> list[SpanRow]:
    """Return the rows that fit into one answer; a caller that pages sees it by their number."""
    kept: list[SpanRow] = []
    size = 0
    for row in rows:
        size += 400 + len(row.attributes) + len(row.detail or "")
        if size > MAX_ANSWER_BYTES and kept:
            break
        kept.append(row)
    return kept
