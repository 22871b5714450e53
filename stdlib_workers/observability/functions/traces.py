"""The functions `engine::traces::*`: payload in, result out."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from functools import partial
from typing import Any

from iii import InvocationError
from stdlib_workers.observability.ingest.pipeline import Pipeline
from stdlib_workers.observability.records.spans import SpanRow, attributes_of, span_json
from stdlib_workers.observability.records.trace_tree import Collapse, groups_from, tree_from
from stdlib_workers.observability.store import span_table
from stdlib_workers.observability.store.archive import Archive, used_bytes
from stdlib_workers.observability.store.figures import figure
from stdlib_workers.observability.store.history import SPANS
from stdlib_workers.observability.store.query_params import QueryParams
from stdlib_workers.observability.store.trace_query import trace_query_from

_TAGS = ("iii.session.id", "iii.session.name", "iii.message.id")
MAX_LIMIT = 10_000
# The limit of a line is 16 MiB, and escapes make every text longer.
MAX_RESULT_BYTES = 6_000_000


class TraceFunctions:
    """Handlers of these functions over one archive, which holds at most `max_bytes`."""

    def __init__(self, archive: Archive, pipeline: Pipeline, max_bytes: int, collapse: Sequence[Collapse]) -> None:
        self._archive = archive
        self._pipeline = pipeline
        self.max_bytes = max_bytes
        self.collapse = collapse

    async def list(self, payload: Any) -> dict[str, Any]:
        """List the roots of traces or all spans, those that the filters of the payload fit."""
        query = trace_query_from(payload)
        bounded = query._replace(limit=min(query.limit, MAX_LIMIT))
        now = self._pipeline.clock()
        rows, total = await self._archive.run(lambda connection: span_table.find(connection, bounded, now))
        return {
            "spans": await self._with_tags(_fitting(rows)),
            "total": total,
            "offset": query.offset,
            "limit": query.limit,
            "storage": await self._storage(),
        }

    async def _with_tags(self, rows: Sequence[SpanRow]) -> builtins.list[dict[str, Any]]:
        traces = sorted({row.trace for row in rows})
        tags: dict[str, dict[str, str]] = {}
        # SQLite takes a bounded number of values in one statement.
        for start in range(0, len(traces), 500):
            for row in await self._archive.run(partial(span_table.tagged, traces=traces[start : start + 500])):
                for name, value in attributes_of(row).items():
                    if name.startswith("iii.tag.") or name in _TAGS:
                        tags.setdefault(row.trace, {})[name] = value
        return [
            {**span_json(row), "trace_tags": tags[row.trace]} if tags.get(row.trace) else span_json(row) for row in rows
        ]

    async def _storage(self) -> dict[str, Any]:
        """Return whether the archive works, how large it is, and how many spans were lost."""
        dropped, error = self._pipeline.dropped, self._pipeline.last_error
        return {
            "archive": "healthy" if error is None else "degraded",
            "completeness": "partial" if dropped else "complete",
            "known_dropped_spans": dropped,
            "thinned_spans": await self._archive.run(lambda connection: figure(connection, SPANS.thinned)),
            "physical_bytes": await self._archive.run(used_bytes),
            "max_disk_bytes": self.max_bytes,
            "last_error": error,
        }

    async def tree(self, payload: Any) -> dict[str, Any]:
        """Return one trace as a tree."""
        trace_id = QueryParams("engine::traces::tree", payload).string("trace_id")
        rows = await self._archive.run(lambda connection: span_table.trace(connection, trace_id))
        return {"roots": tree_from(_fitting(rows), self.collapse), "storage": await self._storage()}

    async def group_by(self, payload: Any) -> dict[str, Any]:
        """Group spans by the value of an attribute."""
        params = QueryParams("engine::traces::group_by", payload)
        attribute, label = params.string("attribute"), params.text("label_attribute")
        since, internal = params.nanoseconds("since_ms") or 0, params.flag("include_internal")
        limit = params.count("limit", 100)
        rows = await self._archive.run(
            lambda connection: span_table.with_attribute(connection, attribute, since, include_internal=internal)
        )
        groups = groups_from(rows, attribute, label)[:limit]
        return {"groups": groups, "storage": await self._storage()}

    async def clear(self, _: Any) -> dict[str, Any]:
        """Forget all spans."""
        try:
            await self._archive.run(span_table.clear)
        except InvocationError as error:
            raise InvocationError("trace_storage_clear_failed", error.message) from None
        return {"success": True}


def _fitting(rows: Sequence[SpanRow]) -> list[SpanRow]:
    """Return as many of the first rows as fit into one result; the caller finds the next page by their number."""
    kept: list[SpanRow] = []
    size = 0
    for row in rows:
        size += 400 + len(row.attributes) + len(row.detail or "")
        if size > MAX_RESULT_BYTES and kept:
            break
        kept.append(row)
    return kept
