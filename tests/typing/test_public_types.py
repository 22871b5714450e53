"""What type checkers say of a user's script: `mypy --strict` and, where it is installed, pyright.

The scripts see the `iii` of this checkout, as a user sees an installed one: by its `py.typed`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A first run of mypy reads the standard library's stubs.
CHECK_TIMEOUT = 55.0

GOOD = """\
from iii import (
    InitOptions,
    InvocationError,
    Logger,
    TelemetryOptions,
    TriggerAction,
    TriggerConfig,
    TriggerHandler,
    TriggerInput,
    TriggerRequest,
    TriggerRequestInput,
    current_invocation,
    register_worker,
)

options = InitOptions(worker_name="shop", invocation_timeout_ms=5000, telemetry=TelemetryOptions(language="python"))
worker = register_worker("stdio:", options)
log = Logger(service_name="shop")


@worker.function("shop::price", description="The price of so many.", metadata={"tier": 1})
def price(count: int, each: float = 1.5) -> float:
    log.info("asked", {"count": count})
    return count * each


@worker.function("shop::report")
async def report(day: str) -> str:
    invocation = current_invocation()
    if invocation is not None:
        invocation.report_progress(1, 2, day)
    await worker.trigger_async({"function_id": "shop::price", "payload": {"count": 2}, "action": {"type": "void"}})
    async for line in worker.stream_async("shop::lines", {"day": day}):
        log.debug("line", line)
    with worker.span("format", {"day": day}) as span:
        span.set("lines", 1)
    return day


class Doorbells(TriggerHandler):
    async def register_trigger(self, config: TriggerConfig) -> None:
        await worker.fire_async(config, {"rang": True})

    async def unregister_trigger(self, config: TriggerConfig) -> None:
        log.info(config.id)


def echo(payload: dict[str, int]) -> dict[str, int]:
    return payload


total: float = price(2, each=0.5)
worker.register_function("shop::echo", echo, response_format={"type": "object"}).unregister()
worker.register_trigger_type({"id": "doorbell", "description": "Someone rings."}, Doorbells())
worker.register_trigger(
    {"type": "http", "function_id": "shop::price", "config": {"api_path": "price", "http_method": "GET"}}
)
worker.register_trigger(
    {"type": "cron", "function_id": "shop::report", "config": {"expression": "0 0 * * *"}, "metadata": ["night"]}
)
binding: TriggerInput = {"type": "state", "function_id": "shop::echo", "config": {"scope": "s"}, "namespace": "eu"}
worker.register_trigger(binding).unregister()
try:
    worker.trigger("shop::price", {"count": 2})
except InvocationError as error:
    log.error(error.code, error.details)
receipt = worker.trigger(
    {"function_id": "shop::report", "action": TriggerAction.Enqueue(queue="reports", delay_ms=50), "timeout_ms": 0.5}
)
worker.trigger(TriggerRequest("shop::report", {"day": "Monday"}, action=TriggerAction.of("repeat", times=2)))
request = TriggerRequestInput(function_id="shop::echo", payload={"a": 1})
worker.trigger({**request, "action": TriggerAction.Void()})
"""

OTHER_MODULES = """\
from iii import InvocationError, TriggerAction
from iii.channel import ChannelReader
from iii.helpers import create_channel
from iii.http import HttpAuthBearer, HttpInvocationConfig, StreamRequest, StreamResponse, http
from iii.testing import Engine


@http
async def page(req: StreamRequest, res: StreamResponse) -> None:
    await res.status(200)
    await res.write(req.method)


class PublicConfig:
    url = "https://example.com"

    def model_dump(self, *, exclude_none: bool = False, by_alias: bool = True) -> dict[str, object]:
        return {"url": self.url}


def test_page(iii: Engine) -> None:
    worker = iii.worker("web")
    worker.register_function("web::page", page)
    worker.register_function("web::far", HttpInvocationConfig("https://example.com", auth=HttpAuthBearer("TOKEN")))
    worker.register_function("web::near", PublicConfig())
    channel = create_channel(worker, buffer_size=8)
    reader: ChannelReader = channel.reader
    worker.trigger("web::read", {"into": channel.writer_ref})
    worker.trigger({"function_id": "web::read", "action": TriggerAction.Void()})
    try:
        iii.call("web::page", method="GET")
    except InvocationError as error:
        assert error.code == "TIMEOUT" and reader is not None
    charge = iii.fake("stripe::charge", returns={"id": "ch_1"})
    iii.fake("stripe::refund", lambda payload: payload["amount"])
    assert charge.calls == []
    iii.advance("1d")
    status: int = iii.http.post("/orders", json={"n": 1}, files={"f": b"x"}, headers={"x-a": "b"}).status_code
    with iii.http.stream("GET", "/events") as response, iii.http.websocket("/chat") as socket:
        line: str = next(response.iter_lines())
        socket.send(line)
    assert (status, iii.failures, iii.now.year, iii.report()) == (201, [], 2026, "")


async def test_page_async(iii: Engine) -> None:
    await iii.call_async("web::page", method="GET")
    await iii.http.get_async("/orders", params={"page": 2})
"""

HANDLERS = """\
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from iii import (
    Body,
    Cookie,
    Entry,
    Event,
    File,
    Form,
    FromEvent,
    Header,
    HttpError,
    Query,
    QueuedFunction,
    Request,
    Response,
    State,
    StreamGroup,
    register_worker,
)

worker = register_worker()


@dataclass
class Order:
    item: str
    quantity: int = 1


class Link(TypedDict):
    url: str


@worker.subscribe("orders.*", condition_function_id="shop::wants")
@worker.on_state("orders", arguments={"customer": FromEvent("key")})
@worker.cron("@daily", timezone="Europe/Berlin", catch_up="once", arguments={"customer": "all", "order": {"item": "x"}})
@worker.post("/orders/{customer}", status=201, function_id="shop::order")
async def order(customer: str, order: Order, dry_run: bool = False) -> Order | Response:
    if dry_run:
        raise HttpError(409, "not now", details={"customer": customer})
    return Response(order, headers={"x-a": "1"}).set_cookie("a", "b") if order.quantity else order


@worker.put("/photos")
@worker.patch("/photos", cancel=True)
def photo(
    request: Request,
    photo: File,
    agent: Header,
    title: Annotated[str, Form()] = "",
    size: Annotated[int, Query("page[size]")] = 1,
    session: Annotated[str | None, Cookie()] = None,
    count: Annotated[int, Body("count")] = 1,
) -> list[str]:
    return [agent.lower(), photo.filename, request.headers["x"], title]


@worker.get("/events")
async def events() -> AsyncIterator[Event]:
    yield Event({"a": 1}, id="1")


@worker.on("doorbell", door="front", volume=3)
@worker.on_stream("chat", group_id="room")
@worker.websocket("/chat")
@worker.delete("/chat")
@worker.route("/chat", methods=["GET", "POST"])
def chat(data: str = "") -> Iterator[str]:
    yield data


@worker.post("/mail")
@worker.queue("mail", retries=5, backoff="2s", timeout=30, concurrency=4, type="fifo", message_group_field="to")
def mail(to: str, text: str = "") -> int:
    return len(text)


@worker.queue("slow")
async def slow(to: str) -> None: ...


queued: QueuedFunction[[str], Any] = slow
lines: list[str] = list(chat("x"))
sent: int = mail("ada", text="hi")
receipt: str = mail.enqueue(to="ada").messageReceiptId
mail.enqueue("ada", text="hi", delay="10s", key="k")
mail.using(delay=1.5, priority=3).enqueue("ada", text="hi")

links: State[Link] = worker.state("links", Link)
counts = worker.state("counts", int)
room: StreamGroup[Order] = worker.stream_group("chat", "room", Order)
untyped = worker.state("any")
untyped["x"] = {"a": [1]}
links["x"] = {"url": "https://example.com"}
url: str = links["x"]["url"]
count: int = counts.get("x", 0) or counts.update("x", {"type": "set", "path": "", "value": 1})
entry: Entry[int] | None = counts.entry("x")
if entry is not None:
    counts.set("x", entry.value + 1, if_version=entry.version)
total: int = sum(counts.list())
keys: list[str] = [key for key in links]
items: list[Order] = room.list()
worker.publish("orders.new", Order("tea"))


async def twins() -> None:
    number: int | None = await counts.get_async("x")
    orders: list[Order] = await room.list_async()
    await slow("ada")
    await mail.enqueue_async(to="ada", delay=number or 1)
    await worker.publish_async("orders.new", orders)
"""

BAD = """\
from iii import InitOptions, register_worker
from iii import Nothing  # red: an unknown name
worker = register_worker(options=InitOptions())
register_worker(options=InitOptions(worker_nam="shop"))  # red: an unknown option
register_worker(options=InitOptions(reconnection_config=5))  # red: no reconnection config
register_worker(options={"worker_name": "shop"})  # red: options that are a dict
worker.register_trigger({"typ": "http", "function_id": "shop::price"})  # red: a key that no trigger has
worker.register_trigger({"type": "http"})  # red: a trigger without a function
worker.register_trigger({"type": "http", "function_id": "shop::price", "config": 5})  # red: a config that is no object
worker.register_trigger_type({"description": "?"}, worker)  # red: a type without an id
worker.trigger({"payload": {"count": 2}})  # red: a call without a function
worker.trigger({"function_id": "shop::price", "timeout": 5})  # red: a key that no request has
worker.trigger({"function_id": "shop::price", "timeout_ms": "5s"})  # red: a timeout that is text
worker.trigger({"function_id": "shop::price"}, {"count": 2})  # red: a payload beside the request that has one
worker.stream({"payload": 1})  # red: a stream without a function
worker.register_function("shop::price", print, descripton="x")  # red: an unknown option of a function
worker.register_function("shop::price", 5)  # red: a handler that cannot be called
worker.function("shop::price", response="x")  # red: an unknown option of the decorator
@worker.function("shop::price")
def price(count: int) -> float:
    return count * 1.5
price("two")  # red: a payload of the wrong type
text: str = price(2)  # red: a result of the wrong type
@worker.get("/price", state=201)  # red: an unknown option of a route
def listed(count: int) -> float:
    return count * 1.5
@worker.cron("@daily", overlap="twice")  # red: a word that cron does not know
def nightly() -> None: ...
@worker.queue("mail", retrys=5)  # red: an unknown option of a queue
def post(to: str) -> int:
    return 1
@worker.queue("mail")
def mail(to: str) -> int:
    return 1
listed("two")  # red: an argument of the wrong type
mail(5)  # red: an argument of the wrong type
mail.enqueue(too="ada")  # red: an argument that the function has not
mail.enqueue(5)  # red: an argument of the wrong type
mail.using(dealy="10s")  # red: an unknown option of a job
mail.using(delay="10s").enqueue(5)  # red: an argument of the wrong type
number: str = mail("ada")  # red: a result of the wrong type
counts = worker.state("counts", int)
counts["x"] = "one"  # red: a value of the wrong type
word: str = counts["x"]  # red: a value of the wrong type
counts.set("x", 1, version=2)  # red: an unknown condition
"""
RED = {number for number, line in enumerate(BAD.splitlines(), 1) if "# red:" in line}


def write(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(script, encoding="utf-8")
    return path


def mypy(path: Path) -> tuple[set[int], str]:
    """Return the lines with an error, and all that was said."""
    cache = path.parent / "mypy_cache"
    command = [sys.executable, "-m", "mypy", "--strict", "--no-color-output", "--cache-dir", str(cache), path.name]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    run = subprocess.run(
        command, cwd=path.parent, env=environment, capture_output=True, text=True, check=False, timeout=CHECK_TIMEOUT
    )
    assert run.returncode in (0, 1), run.stderr
    return {int(number) for number in re.findall(r"^[^:\n]+:(\d+): error:", run.stdout, re.M)}, run.stdout


def pyright(path: Path) -> tuple[set[int], str]:
    """As `mypy`."""
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed in this environment (pip install pyright; it needs node)")
    write(path.parent, "pyrightconfig.json", json.dumps({"extraPaths": [str(ROOT)], "typeCheckingMode": "standard"}))
    command = [sys.executable, "-m", "pyright", "--outputjson", path.name]
    run = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False, timeout=CHECK_TIMEOUT)
    assert run.returncode in (0, 1), run.stderr
    findings = json.loads(run.stdout)["generalDiagnostics"]
    return {row["range"]["start"]["line"] + 1 for row in findings if row["severity"] == "error"}, run.stdout


@pytest.mark.parametrize("script", [GOOD, OTHER_MODULES, HANDLERS], ids=["worker", "other modules", "handlers"])
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_good_script_is_clean(checker, script, tmp_path):
    lines, output = checker(write(tmp_path, "good.py", script))
    assert not lines, output


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_each_mistake_is_an_error_of_its_line_and_no_other_line_has_one(checker, tmp_path):
    lines, output = checker(write(tmp_path, "bad.py", BAD))
    assert lines == RED, output


def test_the_typed_dicts_are_plain_dicts_at_run_time():
    from iii import FunctionOptions, TriggerInput, TriggerRequestInput, TriggerTypeInput  # as a script does

    assert TriggerInput(type="http", function_id="a::b") == {"type": "http", "function_id": "a::b"}
    assert FunctionOptions is TriggerInput is TriggerRequestInput is TriggerTypeInput is dict
