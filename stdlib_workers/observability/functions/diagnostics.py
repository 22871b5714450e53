"""`engine::health::check`, `engine::sampling::rules` and `engine::baggage::*`: the small diagnostic functions."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from iii import __version__, current_invocation
from stdlib_workers.observability.config.options import Options
from stdlib_workers.observability.ingest.pipeline import Pipeline
from stdlib_workers.observability.records.spans import MILLISECOND
from stdlib_workers.observability.store.query_params import QueryParams

# Baggage belongs to a call: no later call would get what this function sets.
NOTE = "baggage travels with a call; set it where the call is made, it does not propagate from here"


class Diagnostics:
    """Handlers of these functions."""

    def __init__(self, options: Options, pipeline: Pipeline) -> None:
        self.options = options
        self._pipeline = pipeline

    def health(self, _: Any) -> dict[str, Any]:
        """Return which parts are on, and whether the storage works."""
        options, error = self.options, self._pipeline.last_error
        export = options.export
        components = {
            "otel": _component(
                options.enabled, f"exporting to {export.endpoint}" if export.spans else "kept on this machine"
            ),
            "metrics": _component(options.enabled and options.metrics_enabled, "stored, and read by Prometheus"),
            "logs": _component(options.enabled and options.logs_enabled, "stored"),
            "spans": _component(options.enabled, error or f"{self._pipeline.dropped} dropped"),
        }
        return {
            "status": "healthy" if error is None else "degraded",
            "components": components,
            "timestamp": self._pipeline.clock() // MILLISECOND,
            "version": __version__,
        }

    def sampling(self, _: Any) -> dict[str, Any]:
        """Return the sampling of traces and logs."""
        return {
            "traces": self.options.sampling.to_json(),
            "logs": {"sampling_ratio": self.options.logs_ratio},
            "timestamp": self._pipeline.clock() // MILLISECOND,
        }

    def baggage(self, payload: Any) -> dict[str, Any]:
        """Return one entry of the baggage this call came with."""
        return {"value": _baggage().get(QueryParams("engine::baggage::get", payload).string("key"))}

    def set_baggage(self, payload: Any) -> dict[str, Any]:
        """Return a note that baggage cannot be set from here."""
        params = QueryParams("engine::baggage::set", payload)
        params.string("key")
        params.string("value")
        return {"success": True, "note": NOTE}

    def all_baggage(self, _: Any) -> dict[str, Any]:
        """Return the baggage this call came with."""
        return {"baggage": _baggage()}


def _component(is_on: object, details: str) -> dict[str, str]:
    return {"status": "healthy" if is_on else "disabled", "details": details}


def _baggage() -> dict[str, str]:
    invocation = current_invocation()
    return baggage_from(None if invocation is None else invocation.baggage)


def baggage_from(header: str | None) -> dict[str, str]:
    """Return the entries of a W3C baggage header; properties behind `;` are left out. Pure."""
    entries = (entry.partition(";")[0].partition("=") for entry in (header or "").split(","))
    return {name.strip(): unquote(value.strip()) for name, sign, value in entries if sign and name.strip()}
