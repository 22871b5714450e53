"""The functions `engine::log::*` and `engine::logs::*`: payload in, result out."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

from iii import Logger
from iii.redaction import BatchRedactor
from stdlib_workers.observability.config.options import Options
from stdlib_workers.observability.ingest.batches import Batch
from stdlib_workers.observability.ingest.pipeline import Pipeline
from stdlib_workers.observability.records.logs import SEVERITIES, log_json, log_row_from, log_without_secrets
from stdlib_workers.observability.records.spans import MILLISECOND
from stdlib_workers.observability.store import log_table
from stdlib_workers.observability.store.archive import Archive
from stdlib_workers.observability.store.query_params import QueryParams


class LogFunctions:
    """Handlers of these functions over one archive."""

    def __init__(self, archive: Archive, pipeline: Pipeline, options: Options) -> None:
        self._archive = archive
        self._pipeline = pipeline
        self.options = options

    def writer(self, level: str) -> Callable[[Any], Awaitable[None]]:
        """Return the handler of `engine::log::LEVEL`."""

        async def write(payload: Any) -> None:
            params = QueryParams(f"engine::log::{level}", payload)
            message = params.string("message")
            ratio = self.options.logs_ratio
            if not self.options.logs_enabled or (ratio < 1 and random.random() >= ratio):
                return
            redactor, now = BatchRedactor(), self._pipeline.clock()
            record = {
                "timestamp_unix_nano": now,
                "severity_number": SEVERITIES[level],
                "severity_text": level.upper(),
                "body": message,
                "attributes": payload.get("data"),
                "trace_id": params.text("trace_id"),
                "span_id": params.text("span_id"),
                "service_name": params.text("service_name") or "unknown",
                "resource": self.options.resource,
                "instrumentation_scope_name": "iii",
            }
            row = log_without_secrets(log_row_from(record, redactor, now), redactor)
            if self.options.logs_console:
                logger = Logger(row.trace, row.service, row.span)
                write_line = getattr(logger, {"trace": "debug"}.get(level, level))
                write_line(row.body, log_json(row)["attributes"] or None)
            await self._pipeline.ingest(Batch(logs=[row]))

        write.__doc__ = f"Log a message of level {level}."
        return write

    async def list(self, payload: Any) -> dict[str, Any]:
        """List log records, the newest first."""
        query = log_table.log_query_from(payload)
        rows, total = await self._archive.run(lambda connection: log_table.find(connection, query))
        return {
            "logs": [log_json(row) for row in rows],
            "total": total,
            "query": query._asdict(),
            "timestamp": self._pipeline.clock() // MILLISECOND,
        }

    async def clear(self, _: Any) -> dict[str, Any]:
        """Forget all log records."""
        await self._archive.run(log_table.clear)
        return {"success": True}
