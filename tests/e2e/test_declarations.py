"""Every function and trigger type of a project with every standard worker says what it takes and gives, truly."""

from __future__ import annotations

import json
import runpy
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from websockets.sync.client import connect as open_websocket

from cli.trigger.help import page
from iii import InvocationError
from iii.declarations import load_declarations
from iii.engine.config.project import STANDARD_WORKERS
from stdlib_workers.flow.functions import OPERATIONS
from tests.support.live_project import BOUND, Project
from tests.support.standard_project import standard_project

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "functions.md"
FOLDERS = [ROOT / "iii" / "engine" / "builtins", *sorted((ROOT / "stdlib_workers").glob("*/"))]
DECLARED = [
    function_id
    for folder in FOLDERS
    if (folder / "declarations.json").exists()
    for function_id in load_declarations(folder).functions
]
# A job that always fails, a cron job, and a function for each trigger type that writes down the events it gets.
SHOP = """
import json
def bind(type, **config):
    def note(payload):
        if isinstance(payload, dict):  # a line of the log has an end
            payload |= {key: value[:2] for key, value in payload.items() if isinstance(value, list)}
        say("event", type, json.dumps(payload, default=lambda channel: {}))
        return {"body": payload} if type == "http" else None
    worker.register_function(f"seen::{type}", note)
    worker.register_trigger({"type": type, "function_id": f"seen::{type}", "config": config})
def send(data):
    raise InvocationError("no_such_address", "nobody lives there")
hook = {"api_path": "/hook", "http_method": "POST"}
worker.register_function("email::send", send)
worker.register_function("hook::call", lambda data: {"body": {"hooked": True}})
worker.register_trigger({"type": "http", "function_id": "hook::call", "config": hook})
worker.observe({"function_id": "hook::call"}, "email::send")
@worker.flow("orders::fulfil", id_field="order_id")
def fulfil(flow, order_id: str):
    flow.step("ship::all", lambda: "sent")
    if order_id == "order-9":
        raise InvocationError("sold_out", "nothing is left")
    return flow.wait("approved")
bind("configuration", configuration_id="seen")
bind("cron", expression="0 0 1 1 *", name="nightly")
bind("durable:subscriber", topic="orders")
bind("flow:ended")
bind("engine::functions-available")
bind("engine::workers-available")
bind("http", api_path="/users/:id")
bind("log", level="warn")
bind("state", scope="users")
bind("stream", stream_name="chat")
bind("stream:join")
bind("stream:leave")
bind("subscribe", topic="orders.*")
bind("trace")
bind("websocket", api_path="/live")
"""
# Only the engine has what it takes to call them.
NOT_FOR_CALLERS = {"observability::ingest", "observability::on-workers-changed"}
# Only the function of a flow makes its steps.
NOT_FOR_CALLERS |= {f"flow::{name}" for name in OPERATIONS}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with standard_project(tmp_path_factory.mktemp("shop"), {"shop": SHOP}) as running:
        yield running


@pytest.fixture(scope="module")
def functions(shop: Project) -> dict[str, dict[str, Any]]:
    """What the engine says of every function that is not the project's own."""
    listed = shop.call("engine::functions::list", {"include_internal": True})["functions"]
    ids = [row["function_id"] for row in listed if row["worker_name"] != "shop"]
    with shop.connect() as connection:
        return {id: connection.call("engine::functions::info", {"function_id": id}) for id in ids}


@pytest.fixture(scope="module")
def trigger_types(shop: Project) -> dict[str, dict[str, Any]]:
    rows = shop.call("engine::trigger-types::list", {"include_internal": True})["trigger_types"]
    return {row["id"]: row for row in rows}


def undescribed(schema: Any, path: str = "") -> list[str]:
    """Return the paths of the properties without a description."""
    missing = []
    if isinstance(schema, dict):
        properties = schema.get("properties")
        for name, inner in (properties if isinstance(properties, dict) else {}).items():
            if not inner.get("description") and "$ref" not in inner:
                missing.append(f"{path}.{name}")
        for name, inner in schema.items():
            missing += undescribed(inner, f"{path}.{name}")
    elif isinstance(schema, list):
        for inner in schema:
            missing += undescribed(inner, path)
    return missing


def test_a_property_without_a_description_is_found() -> None:
    schema = {"properties": {"a": {"description": "A."}, "b": {"type": "array", "items": {"properties": {"c": {}}}}}}
    assert undescribed(schema) == [".b", ".properties.b.items.c"]


def test_every_function_has_both_schemas_with_descriptions_and_an_example(functions: dict[str, dict[str, Any]]) -> None:
    assert len(functions) > 85
    for function_id, info in functions.items():
        assert info.get("description") or function_id == "queue::on-functions-available", function_id
        for kind in ("request_schema", "response_schema"):
            Draft202012Validator.check_schema(info[kind])
            assert undescribed(info[kind]) == [], (function_id, kind)
        examples = info["request_schema"]["examples"]
        for example in examples:
            Draft202012Validator(info["request_schema"]).validate(example)
        assert examples, function_id


def test_the_project_of_these_tests_has_every_standard_worker(shop: Project) -> None:
    assert set(STANDARD_WORKERS) <= {row["name"] for row in shop.call("engine::workers::list")["workers"]}


def test_every_trigger_type_has_its_three_schemas(trigger_types: dict[str, dict[str, Any]]) -> None:
    assert len(trigger_types) == 18
    for id, row in trigger_types.items():
        kinds = ("configuration_schema", "request_schema", "response_schema")
        for kind in kinds[:1] if id == "queue" else kinds:  # a queue has jobs, which are calls, and no events
            Draft202012Validator.check_schema(row[kind])
            assert undescribed(row[kind]) == [], (id, kind)
            for example in row[kind].get("examples", []):
                Draft202012Validator(row[kind]).validate(example)
        assert row["configuration_schema"]["examples"], id


def test_the_schemas_of_one_type_are_in_its_details_too(
    shop: Project, trigger_types: dict[str, dict[str, Any]]
) -> None:
    for function_id in ("engine::triggers::info", "engine::trigger-types::info"):
        details = shop.call(function_id, {"id": "http"})
        assert details == {**trigger_types["http"], "instance_count": 2}


def wait_for_letters(shop: Project, *jobs: str) -> None:
    """Wait until these jobs are dead."""
    end = time.monotonic() + BOUND
    while time.monotonic() < end:
        letters = shop.call("engine::queue::dlq_messages", {"topic": "emails"})
        if {letter["id"] for letter in letters} >= set(jobs):
            return
    raise TimeoutError(f"{jobs} are not dead")


def enqueue_dead(shop: Project, job: str) -> None:
    job_fields = {"queue": "emails", "function_id": "email::send", "data": {}, "messageReceiptId": job}
    shop.call("engine::queue::enqueue", job_fields)
    wait_for_letters(shop, job)


def start_order(shop: Project, order: str) -> None:
    shop.call("flow::start", {"function_id": "orders::fulfil", "payload": {"order_id": order}})
    while shop.call("flow::get", {"run": order})["state"] not in ("parked", "failed"):
        pass  # each look is a call


# What has to be there before the example of a function runs.
BEFORE: dict[str, Callable[[Project], None]] = {
    "iii::queue::delete": lambda shop: shop.call("queue::define", {"queue": "old"}),
    "flow::cancel": lambda shop: start_order(shop, "order-8"),
    "flow::retry": lambda shop: start_order(shop, "order-9"),
    "iii::queue::redrive_message": lambda shop: enqueue_dead(shop, "job-3"),
    "iii::queue::discard_message": lambda shop: enqueue_dead(shop, "job-4"),
}


def arguments_for(shop: Project, function_id: str, example: Any) -> Any:
    """Return the example with what only this project knows: an id, and the address of its hook."""
    if function_id.startswith("engine::http_functions::"):
        return {**example, "invocation": {"url": f"http://127.0.0.1:{shop.ports['http']}/hook"}}
    if function_id == "engine::registered-triggers::info":
        rows = shop.call("engine::registered-triggers::list", {"trigger_type": "cron"})["registered_triggers"]
        return {"id": rows[0]["id"]}
    if function_id == "engine::observers::get":
        return {"id": shop.call("engine::observers::list")["observers"][0]["id"]}
    return example


def run_line(shop: Project, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a help page."""
    _, *words = shlex.split(line)
    command = [sys.executable, "-m", "cli.main", *words]
    return subprocess.run(command, cwd=shop.folder, capture_output=True, text=True, timeout=BOUND, check=False)


# What every standard worker with a store has under a name of its own, and what only a cluster has.
ELSEWHERE = {"storage::backup", "engine::cluster::info"}


@pytest.mark.timeout(240)  # some eighty command lines
def test_the_example_of_every_function_runs_and_its_answer_is_as_declared(
    shop: Project, functions: dict[str, dict[str, Any]]
) -> None:
    """In the order of the declarations, which puts what makes something before what needs it."""
    named = {function_id for function_id in functions if not function_id.startswith("storage::backup::")}
    assert named == set(DECLARED) - ELSEWHERE
    backups = sorted(functions.keys() - named)
    for function_id in [*DECLARED, *backups]:
        if function_id in NOT_FOR_CALLERS | ELSEWHERE:
            continue
        info = functions[function_id]
        BEFORE.get(function_id, lambda _: None)(shop)
        example = info["request_schema"]["examples"][0]
        arguments = arguments_for(shop, function_id, example)
        if arguments != example:
            answer = shop.call(function_id, arguments)
        else:
            line = page(info).partition("Example:\n  ")[2].partition("\n")[0]
            done = run_line(shop, line + " --raw")
            assert done.returncode == 0, (line, done.stderr)
            answer = json.loads(done.stdout) if done.stdout else None
        Draft202012Validator(info["response_schema"]).validate(answer)
    for function_id in NOT_FOR_CALLERS:
        with pytest.raises(InvocationError, match=r"FORBIDDEN|flow_fenced"):
            shop.call(function_id, functions[function_id]["request_schema"]["examples"][0])


def test_the_events_of_every_trigger_type_are_as_declared(
    shop: Project, trigger_types: dict[str, dict[str, Any]]
) -> None:
    shop.call("configuration::register", {"id": "seen", "name": "Seen", "description": "For its event.", "schema": {}})
    state = {"scope": "users", "key": "eve"}
    item = {"stream_name": "chat", "group_id": "lobby", "item_id": "m2"}
    shop.call("state::set", {**state, "value": 1})
    shop.call("state::delete", state)
    shop.call("stream::set", {**item, "data": 1})
    shop.call("stream::delete", item)
    shop.call("stream::send", {"stream_name": "chat", "group_id": "lobby", "type": "typing", "data": 1})
    shop.call("publish", {"topic": "orders.paid", "data": 1})
    shop.call("iii::durable::publish", {"topic": "orders", "data": 1})
    shop.call("cron::run", {"job": "nightly"})
    start_order(shop, "order-9")
    shop.call("engine::log::warn", {"message": "careful"})
    urllib.request.urlopen(f"http://127.0.0.1:{shop.ports['http']}/users/7?a=1").close()
    with open_websocket(f"ws://127.0.0.1:{shop.ports['http']}/live") as socket:
        socket.send("hello")
        shop.wait('"event": "message"')
    with open_websocket(f"ws://127.0.0.1:{shop.ports['stream']}/") as socket:
        data = {"subscriptionId": "s1", "streamName": "chat", "groupId": "lobby"}
        socket.send(json.dumps({"type": "join", "data": data}))
        shop.wait("event stream:join")
    shop.wait('"event": "close"')
    for id in trigger_types.keys() - {"telemetry", "queue", "flow"}:
        for line in shop.wait(f"event {id} "):
            event = json.loads(line.partition(f"event {id} ")[2])
            Draft202012Validator(trigger_types[id]["request_schema"]).validate(event)


MISSPELLED = [
    ("engine::functions::list", {"serach": "a"}, "search"),
    ("engine::triggers::info", {"ID": "cron"}, "id"),
    ("engine::traces::list", {"limt": 1}, "limit"),
    ("engine::logs::list", {"severity_mim": 1}, "severity_min"),
    ("engine::queue::dlq_messages", {"topic": "a", "ofset": 1}, "offset"),
    ("cron::next", {"expresion": "@daily"}, "expression"),
    ("state::set", {"scope": "a", "kye": "b", "value": 1}, "key"),
    ("stream::list", {"stream_name": "a", "groupid": "b"}, "group_id"),
    ("publish", {"topc": "a", "data": 1}, "topic"),
    ("queue::define", {"queue": "a", "confg": {}}, "config"),
    ("bridge.invoke", {"function": "a"}, "function_id"),
]


@pytest.mark.parametrize(("function_id", "payload", "meant"), MISSPELLED)
def test_a_misspelled_key_is_refused_with_the_nearest_name(
    shop: Project, function_id: str, payload: dict[str, Any], meant: str
) -> None:
    with pytest.raises(InvocationError, match=f"did you mean `{meant}`") as caught:
        shop.call(function_id, payload)
    assert caught.value.code == "invalid_payload"


@pytest.mark.parametrize("function_id", ["engine::functions::list", "engine::logs::list", "iii::queue::list"])
def test_other_keys_and_no_payload_are_admitted(shop: Project, function_id: str) -> None:
    shop.call(function_id, {"zzz": 1, "_caller_worker_id": "w"})
    shop.call(function_id, None)


def test_the_reference_is_what_the_project_describes(shop: Project) -> None:
    reference = runpy.run_path(str(ROOT / "scripts" / "function-docs"))["page"]
    with shop.connect() as connection:
        assert PAGE.read_text(encoding="utf-8") == reference(connection), "run scripts/function-docs"
