"""Calls for the page: any function that `iii trigger` can call, with the right to change something checked here.

What only reads leaves no trace: the page asks often. Everything else is recorded under a span that names the console,
so that a trace tells who has changed something.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from iii import InvocationError, TriggerRequestInput, Worker
from stdlib_workers.values import encode

# Functions that change nothing. Every other one is a write, those of the project among them.
READS = frozenset(
    {
        *(
            f"engine::{name}::{verb}"
            for name in ("functions", "triggers", "trigger-types", "registered-triggers", "workers")
            for verb in ("list", "info")
        ),
        *("engine::config::list", "engine::counters::list", "engine::observers::list", "engine::observers::get"),
        *(f"engine::traces::{verb}" for verb in ("list", "tree", "group_by")),
        *(f"engine::{name}::list" for name in ("logs", "metrics", "rollups", "alerts")),
        *("engine::sampling::rules", "engine::health", "engine::health::check"),
        *("iii::queue::list", "iii::queue::peek"),
        *(f"engine::queue::{name}" for name in ("list_topics", "topic_stats", "dlq_topics", "dlq_messages")),
        *("flow::list", "flow::get", "flow::export"),
        *("cron::list", "cron::next", "http::openapi", "http::origins", "console::about"),
        *(f"state::{name}" for name in ("get", "get_entry", "list", "list_keys", "list_groups", "list_entries")),
        *(f"stream::{name}" for name in ("get", "list", "list_entries", "list_groups", "list_all")),
        *("configuration::get", "configuration::list", "configuration::schema"),
    }
)
# Bytes of a result that the page gets whole; of a longer one it gets the beginning.
MAX_RESULT, SHOWN_OF_LONGER = 4 * 1024 * 1024, 64 * 1024
# Milliseconds that a call may take, and takes unless the page says something else.
MAX_TIMEOUT, TIMEOUT = 600_000, 30_000
# Streamed items of one call; what comes beyond is counted.
MAX_ITEMS = 10_000
KEYS = ("function_id", "namespace", "payload", "action", "timeout_ms", "metadata")


class BadRequest(ValueError):
    """The page asks for something that is no call; the text says what."""


def request_of(body: Any) -> TriggerRequestInput:
    """Return the call that a body asks for. BadRequest for a body that is none. Pure."""
    if not isinstance(body, Mapping) or not isinstance(body.get("function_id"), str) or not body["function_id"]:
        raise BadRequest('the body must be an object like {"function_id": "math::add", "payload": {}}')
    for name in body:
        if name not in KEYS:
            raise BadRequest(f"there is no field {name!r:.80}; there are {', '.join(KEYS)}")
    timeout = body.get("timeout_ms", TIMEOUT)
    if type(timeout) is not int or not 1 <= timeout <= MAX_TIMEOUT:
        raise BadRequest(f"timeout_ms must be from 1 to {MAX_TIMEOUT}")
    request: TriggerRequestInput = {"function_id": body["function_id"], "timeout_ms": timeout}
    for name in ("namespace", "payload", "action", "metadata"):
        if body.get(name) is not None:
            request[name] = body[name]  # type: ignore[literal-required]
    return request


class Calls:
    """Makes the page's calls through `worker`."""

    def __init__(self, worker: Worker, *, read_only: bool) -> None:
        self._worker = worker
        self.read_only = read_only

    async def call(self, body: Any) -> dict[str, Any]:
        """Return `{"result"}`, `{"cut", "bytes"}` of a result that is too long, or `{"error"}`, with the `trace_id` of
        a write. BadRequest for a body that is no call.
        """
        request = request_of(body)
        if (refused := self._refusal(request)) is not None:
            return refused
        with_trace, trace = self._traced(request)
        try:
            answer = answer_of(await self._worker.trigger_async(with_trace))
        except InvocationError as error:
            answer = {"error": error_of(error)}
        return {**answer, **self._record(request, trace, answer)}

    async def stream(self, body: Any) -> AsyncIterator[dict[str, Any]]:
        """Yield `{"item"}` and `{"progress"}` as they come, and at the end what `call` returns. Errors as in `call`."""
        request = request_of(body)
        if (refused := self._refusal(request)) is not None:
            yield refused
            return
        with_trace, trace = self._traced(request)
        progress: list[dict[str, Any]] = []
        results: list[Any] = []
        count = 0
        answer: dict[str, Any]
        try:
            items = self._worker.stream_async(with_trace, on_progress=progress.append, on_result=results.append)
            async for item in items:
                while progress:
                    yield {"progress": progress.pop(0)}
                count += 1
                if count <= MAX_ITEMS:
                    yield {"item": answer_of(item)}
            answer = answer_of(results[0]) if results else {"result": None}
            if count:
                answer = {**answer, "items": count}
        except InvocationError as error:
            answer = {"error": error_of(error)}
        while progress:
            yield {"progress": progress.pop(0)}
        yield {**answer, **self._record(request, trace, answer)}

    def _refusal(self, request: TriggerRequestInput) -> dict[str, Any] | None:
        if self.read_only and not _is_read(request):
            text = "this console is read-only (read_only in [workers.console.config]): it changes and calls nothing"
            return {"error": {"code": "read_only", "message": text}}
        return None

    def _traced(self, request: TriggerRequestInput) -> tuple[TriggerRequestInput, tuple[str, str, int]]:
        """Return the call with its place in a trace, and the ids and begin of the span above it.

        Only the trace of a write is recorded.
        """
        trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
        flags = "00" if _is_read(request) else "01"
        trace: TriggerRequestInput = {**request, "trace": {"traceparent": f"00-{trace_id}-{span_id}-{flags}"}}
        return trace, (trace_id, span_id, time.time_ns())

    def _record(
        self, request: TriggerRequestInput, trace: tuple[str, str, int], answer: Mapping[str, Any]
    ) -> dict[str, str]:
        if _is_read(request):
            return {}
        trace_id, span_id, begun = trace
        error = answer.get("error")
        span = {
            "name": f"console {request['function_id']}"[:256],
            "trace_id": trace_id,
            "span_id": span_id,
            "parent_span_id": None,
            "flags": 1,
            "start_time_unix_nano": begun,
            "end_time_unix_nano": time.time_ns(),
            "status": "error" if error else "ok",
            "status_description": error["message"][:2048] if error else "",
            "attributes": {"iii.console.write": True, "iii.console.function": request["function_id"][:256]},
        }
        self._worker.record_spans([span])
        return {"trace_id": trace_id}


def _is_read(request: TriggerRequestInput) -> bool:
    return request["function_id"] in READS and not request.get("action")


def answer_of(value: Any) -> dict[str, Any]:
    """Return `{"result"}` with the value, or of a long one `{"cut", "bytes"}` with the beginning of its text. Pure."""
    text = encode(value)
    if len(text) <= MAX_RESULT:
        return {"result": value}
    return {"cut": text[:SHOWN_OF_LONGER].decode("utf-8", "ignore"), "bytes": len(text)}


def error_of(error: InvocationError) -> dict[str, Any]:
    """Return an error as the page shows it. Pure."""
    fields = {"code": error.code, "message": error.message, "details": error.details, "stacktrace": error.stacktrace}
    return {name: value for name, value in fields.items() if value}
