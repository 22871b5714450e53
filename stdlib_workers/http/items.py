"""Answers of functions that get arguments: any value, a whole response, or items as they come.

The SDK marks what is more than a plain value by the key `$iii`: a response with status and headers, and an event of a
generator. Items go out as server-sent events, as lines of JSON or as text, as the client asks; a client that is slow
holds the generator back, and one that leaves ends it. An answer whose function fails ends without its end.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import Response

from iii import InvocationError
from stdlib_workers.http.replies import (
    JSON,
    BadResult,
    Explain,
    Refusal,
    encode,
    refusal_from,
    respond,
    response_from,
)
from stdlib_workers.http.requests import Disconnected, Request
from stdlib_workers.http.routes import Route
from stdlib_workers.http.streaming import Streamed, failure_event

MARK = "$iii"
EVENTS, LINES, TEXT = "text/event-stream", "application/x-ndjson", "text/plain"
# What a client may call them.
_ASKED = {EVENTS: EVENTS, **dict.fromkeys((LINES, "application/ndjson", "application/jsonl"), LINES), TEXT: TEXT}
# As the contract of server-sent events has it.
_LINE_END = re.compile(r"\r\n|\r|\n")
_FIELD_BREAK = re.compile(r"[\r\n\0]")
_QUALITY = re.compile(r"\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*\Z", re.IGNORECASE)
_END: Any = object()
# Calls a function and yields its items; what it returns without any goes to `on_result`, a keyword.
Iterate = Callable[..., AsyncIterator[Any]]


def response_of(result: Any, status: int | None) -> Response:
    """Return the response of a function that got arguments. Nothing is 204 unless `status` is given.

    BadResult for what HTTP or JSON cannot carry.
    """
    if isinstance(result, dict) and result.get(MARK) == "response":
        return _whole_response(result)
    if result is None:
        return respond(status or 204, [])
    if status in (204, 205):
        raise BadResult(f"a response of status {status} has no body, and the function returned one")
    return respond(status or 200, [JSON], encode(result, "the result"))


def _whole_response(fields: dict[str, Any]) -> Response:
    body = fields.get("body")
    try:
        if "body_base64" in fields:
            body = binascii.a2b_base64(fields["body_base64"], strict_mode=True)
    except (TypeError, ValueError) as error:
        raise BadResult(f"body_base64 cannot be read: {error}") from None
    return response_from({**fields, "body": b"" if body is None else body})


def content_type_for(accept: str) -> str:
    """Return how items are sent: what the client likes best, server-sent events unless it names another. Pure."""
    best, best_quality = EVENTS, 0.0
    for part in accept.split(","):
        name, *parameters = part.split(";")
        quality = next((float(found[1]) for each in parameters if (found := _QUALITY.match(each))), 1.0)
        kind = _ASKED.get(name.strip().lower(), EVENTS if name.strip() in ("*/*", "text/*") else None)
        if kind is not None and quality > best_quality:
            best, best_quality = kind, quality
    return best


def encode_item(item: Any, content_type: str) -> bytes:
    """Return an item as a part of the body. BadResult for one that is not JSON. Pure."""
    event = item if isinstance(item, dict) and item.get(MARK) == "event" else None
    data: Any = item if event is None else event.get("data")
    if content_type == TEXT and isinstance(data, str):
        return data.encode("utf-8", "replace")
    if content_type in (LINES, TEXT):
        return encode(data, "an item") + b"\n"
    text = data if isinstance(data, str) else encode(data, "an item").decode()
    fields = [(name, event[name]) for name in ("event", "id", "retry") if event and event.get(name) is not None]
    lines = [f"{name}: {_FIELD_BREAK.sub(' ', str(value))}\n" for name, value in fields]
    lines += [f"data: {line}\n" for line in _LINE_END.split(text)]
    return "".join([*lines, "\n"]).encode("utf-8", "replace")


class Items:
    """One such answer. `respond`, and `close` in any case. `silence` is how many seconds the function may be silent."""

    def __init__(self, iterate: Iterate, request: Request, explain: Explain, silence: float) -> None:
        self._iterate = iterate
        self._request = request
        self._explain = explain
        self._silence = silence
        self._items: AsyncIterator[Any] | None = None
        self._leaving: asyncio.Future[None] | None = None
        self._waiting: asyncio.Timeout | None = None

    async def respond(self, route: Route, values: dict[str, Any]) -> Response:
        """Call the function and return its result as a response, or the items once the first is there.

        Refusal for a failure before; BadResult for a result that is none.
        """
        request = self._request
        results: list[Any] = []
        call = request.call_of(route.function_id, values, is_endless=True)
        self._items = self._iterate(call, on_result=results.append)
        try:
            async with asyncio.timeout_at(request.deadline):
                first = await self._next()
        except TimeoutError:
            text = f"{route.function_id} neither returned nor yielded in time"
            raise Refusal(504, "TIMEOUT", text) from None
        if first is _END and (results or not route.streams):
            return response_of(results[0] if results else None, route.status)
        content_type = content_type_for(request.headers.get("accept", ""))
        response = Streamed(self._parts(first, content_type), route.status or 200)
        response.headers["content-type"] = f"{content_type}; charset=utf-8"
        response.headers["cache-control"] = "no-cache"
        self._leaving = asyncio.ensure_future(request.wait_until_gone())
        self._leaving.add_done_callback(self._hurry)
        return response

    async def _next(self) -> Any:
        assert self._items is not None
        try:
            return await anext(self._items, _END)
        except InvocationError as error:
            raise refusal_from(error, explain=self._explain) from None

    async def _parts(self, item: Any, content_type: str) -> AsyncIterator[bytes]:
        """Yield the items to their end. Refusal, also as a last event, when the function fails; Disconnected."""
        try:
            while item is not _END:
                yield encode_item(item, content_type)
                item = await self._next_in_time()
        except Refusal as refusal:
            if content_type == EVENTS:
                yield failure_event(refusal, self._request.id)
            raise

    async def _next_in_time(self) -> Any:
        assert self._leaving is not None
        if self._leaving.done():
            raise Disconnected
        try:
            async with asyncio.timeout(self._silence) as self._waiting:
                return await self._next()
        except TimeoutError:
            if self._leaving.done():
                raise Disconnected from None
            text = f"{self._request.function_id} yielded nothing for {self._silence:g} s"
            raise Refusal(504, "TIMEOUT", text) from None
        finally:
            self._waiting = None

    def _hurry(self, _: Any) -> None:
        """Wait no longer for a client that has left."""
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """End the call if it has not ended."""
        if self._leaving is not None:
            self._leaving.cancel()
        if self._items is not None:
            await self._items.aclose()  # type: ignore[attr-defined]  # the SDK's is an async generator
