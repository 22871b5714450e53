"""What a function's response channel makes of its answer, without an engine: who wins, and what is ignored."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message

from iii import InvocationError
from stdlib_workers.http.replies import BadResult, Refusal
from stdlib_workers.http.requests import Request
from stdlib_workers.http.routes import Route
from stdlib_workers.http.streaming import Stream, failure_event
from tests.support.stand_ins import until

ROUTE = Route("t", "f::f", "POST", "/a", streams=True)


class Pipe:
    """Both ends of one channel."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.sent: list[Any] = []
        self.is_closed = False

    async def send(self, item: str | bytes) -> None:
        self.sent.append(item)
        await self._items.put(item)

    async def close(self) -> None:
        self.is_closed = True
        await self._items.put(None)

    async def receive(self) -> str | bytes | None:
        return await self._items.get()


class Pipes:
    """Stands for the engine's channels."""

    def __init__(self) -> None:
        self.made: list[Pipe] = []

    async def make(self) -> tuple[dict[str, str], dict[str, str]]:
        self.made.append(Pipe())
        number = str(len(self.made) - 1)
        return {"channel_id": number, "direction": "write"}, {"channel_id": number, "direction": "read"}

    async def open(self, reference: dict[str, str]) -> Pipe:
        return self.made[int(reference["channel_id"])]


async def answer(
    function: Callable[[Pipe], Awaitable[Any]],
    body: bytes = b"",
    kind: bytes = b"",
    seconds: float = 10.0,
    silence: float = 10.0,
) -> tuple[Any, ...]:
    """Serve one request with `function`, which gets the writer; return status, headers, body, and what it was sent."""
    pipes: Any = Pipes()
    messages = [{"type": "http.request", "body": body, "more_body": False}] if body else []

    async def receive() -> Message:
        return messages.pop(0) if messages else await asyncio.Future()

    async def trigger(call: dict[str, Any]) -> Any:
        # The request's channel ends with its body, at once without one.
        await until(lambda: pipes.made[0].is_closed)
        return await function(pipes.made[int(call["payload"]["response"]["channel_id"])])

    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))] if body else []
    scope = {"type": "http", "method": "POST", "raw_path": b"/a", "query_string": b"", "headers": headers}
    payload: dict[str, Any] = {"body": None}
    request = Request(scope, receive, 1000, seconds)
    request.route = ROUTE
    stream = Stream(pipes, request, silence)
    try:
        await stream.open(payload)
        sent: list[Any] = []

        async def send(message: Message) -> None:
            sent.append(message)

        await (await stream.respond(trigger, payload))(scope, receive, send)
        start, *parts = sent
        found = {name: value for name, value in start["headers"] if name != b"content-length"}
        received = pipes.made[int(payload["request_body"]["channel_id"])].sent
        return start["status"], found, b"".join(part["body"] for part in parts), payload["body"], b"".join(received)
    finally:
        await stream.close()


def status(code: int) -> str:
    return json.dumps({"type": "set_status", "status_code": code})


def headers(**given: Any) -> str:
    return json.dumps({"type": "set_headers", "headers": given})


async def test_texts_set_status_and_headers_until_the_first_bytes() -> None:
    async def function(writer: Pipe) -> None:
        for text in (status(201), status(99), status(202), headers(a="1", b="2"), headers(b="3", c=4)):
            await writer.send(text)
        await writer.send(b"one")
        await writer.send(status(500))
        await writer.send(headers(a="late"))
        await writer.send(b"two")
        await writer.close()

    assert (await answer(function))[:3] == (202, {b"a": b"1", b"b": b"3", b"c": b"4"}, b"onetwo")


async def test_texts_that_control_nothing_are_ignored() -> None:
    async def function(writer: Pipe) -> None:
        for text in ("no json", "[1]", "5", '{"type": "set_trailers"}', '{"type": "set_status"}'):
            await writer.send(text)
        await writer.close()

    assert (await answer(function))[:3] == (200, {}, b"")


async def test_a_result_before_the_first_bytes_discards_what_was_set() -> None:
    async def function(writer: Pipe) -> Any:
        await writer.send(status(500))
        await writer.send(headers(a="1"))
        return {"status_code": 201, "body": 1}

    assert (await answer(function))[:3] == (201, {b"content-type": b"application/json"}, b"1")


async def test_bytes_before_the_result_win() -> None:
    async def function(writer: Pipe) -> Any:
        await writer.send(b"bytes")
        await writer.close()
        return {"status_code": 500}

    assert (await answer(function))[:3] == (200, {}, b"bytes")


async def test_a_failure_before_the_first_bytes_is_the_answer() -> None:
    async def early(writer: Pipe) -> Any:
        await writer.send(status(201))
        raise InvocationError("my_code", "mine")

    with pytest.raises(Refusal) as caught:
        await answer(early)
    assert (caught.value.status, caught.value.code) == (500, "my_code")


@pytest.mark.parametrize("closes", [True, False])
async def test_a_failure_after_the_first_bytes_leaves_the_stream_without_its_end(*, closes: bool) -> None:
    async def function(writer: Pipe) -> Any:
        await writer.send(b"one")
        await writer.send(b"two")
        if closes:  # as the end of its process does
            await writer.close()
        await asyncio.sleep(0)
        raise InvocationError("my_code", "mine")

    with pytest.raises(Refusal) as caught:
        await answer(function)
    assert (caught.value.code, caught.value.message) == ("my_code", "mine")


async def test_a_stream_that_falls_silent_is_cut_off_and_one_that_goes_on_is_not() -> None:
    loop = asyncio.get_running_loop()

    async def pause(seconds: float) -> None:
        end = loop.time() + seconds
        await until(lambda: loop.time() > end)

    async def goes_on(writer: Pipe) -> None:
        for _ in range(6):
            await writer.send(b".")
            await pause(0.1)
        await writer.close()

    async def stops(writer: Pipe) -> None:
        await writer.send(b".")
        await asyncio.Future()

    assert (await answer(goes_on, silence=0.3))[2] == b"......"
    with pytest.raises(Refusal, match=r"neither the function nor the client sent anything for 0.3 s"):
        await answer(stops, silence=0.3)


async def test_a_function_that_has_closed_its_stream_may_go_on() -> None:
    went_on = asyncio.Event()

    async def function(writer: Pipe) -> None:
        await writer.send(b"all")
        await writer.close()
        await asyncio.sleep(1.2)  # longer than its outcome is waited for
        went_on.set()

    assert (await answer(function))[2] == b"all"
    await asyncio.wait_for(went_on.wait(), 5)


async def test_a_failure_long_after_the_stream_was_closed_is_left_to_the_engine_to_tell(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed = asyncio.Event()

    async def function(writer: Pipe) -> None:
        await writer.send(b"all")
        await writer.close()
        await asyncio.sleep(1.2)  # longer than its outcome is waited for
        failed.set()
        raise InvocationError("my_code", "mine")

    assert (await answer(function))[2] == b"all"
    await asyncio.wait_for(failed.wait(), 5)
    await asyncio.sleep(0)
    gc.collect()
    assert caplog.records == []


def test_the_last_event_of_a_stream_that_failed_is_an_error_in_one_line() -> None:
    event = failure_event(Refusal(500, "my_code", "two\nlines"), "r-1").decode()
    name, data, *rest = event.split("\n")
    assert (name, rest) == ("event: error", ["", ""])
    expected = {"error": {"code": "my_code", "message": "two\nlines", "error_id": "r-1"}}
    assert json.loads(data.removeprefix("data: ")) == expected


async def test_neither_a_result_nor_bytes_in_time_is_a_504() -> None:
    async def function(_: Pipe) -> None:
        return None

    with pytest.raises(Refusal) as caught:
        await answer(function, seconds=0.05)
    assert (caught.value.status, caught.value.code) == (504, "TIMEOUT")


async def test_once_begun_a_stream_may_take_longer_than_a_request() -> None:
    loop = asyncio.get_running_loop()

    async def function(writer: Pipe) -> None:
        await writer.send(b"one")
        end = loop.time() + 0.3
        await until(lambda: loop.time() > end)
        await writer.send(b"two")
        await writer.close()

    assert (await answer(function, seconds=0.2))[:3] == (200, {}, b"onetwo")


async def test_a_header_that_is_none_does_not_reach_the_client() -> None:
    async def function(writer: Pipe) -> None:
        await writer.send(headers(a="b\r\nset-cookie: c"))
        await writer.send(b"bytes")

    with pytest.raises(BadResult):
        await answer(function)


@pytest.mark.parametrize(
    ("body", "kind", "parsed"),
    [
        (b'{"a": 1}', b"application/json", {"a": 1}),
        (b"a=1", b"application/x-www-form-urlencoded", {"a": "1"}),
        (b"\x00\xff", b"application/octet-stream", None),
        (b"", b"", None),
    ],
)
async def test_the_raw_bytes_are_on_the_request_channel_whatever_was_parsed(
    body: bytes, kind: bytes, parsed: Any
) -> None:
    async def function(writer: Pipe) -> None:
        await writer.close()

    assert (await answer(function, body, kind))[3:] == (parsed, body)
