"""`Batch`: the rows that are stored in one commit, and that every subscriber of the pipeline then gets. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stdlib_workers.observability.records.aggregation import Value
from stdlib_workers.observability.records.logs import LogRow
from stdlib_workers.observability.records.metrics import MetricRow
from stdlib_workers.observability.records.spans import SpanRow


class Batch(NamedTuple):
    """Rows by kind. `values` are samples for the rollups alone; `malformed` counts records that made no row."""

    spans: Sequence[SpanRow] = ()
    logs: Sequence[LogRow] = ()
    metrics: Sequence[MetricRow] = ()
    values: Sequence[Value] = ()
    malformed: int = 0
