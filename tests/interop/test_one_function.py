"""One typed function, unchanged: bound to six trigger types, and called from the terminal, Python, Node and Rust.

Functions of the official npm SDK with schemas get their arguments by the same data.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import official
from tests.support.asgi_client import Answer
from tests.support.dev_project import ROOT, Project, running_project
from tests.support.web_project import ask

BUILD = 900.0  # seconds that a first build of the Rust worker may take on a busy machine

# The function knows of none of its callers. Everything below it is data.
SHOP = '''
import sys
from iii import register_worker

worker = register_worker()


@worker.function("shop::note")
def note(text: str, times: int = 1) -> dict:
    """Write a text down."""
    sys.stderr.write(f"@ noted {text} x{times}\\n")
    return {"noted": " ".join([text] * times)}


def bind(type, config, **arguments):
    config = {**config, "payload": "arguments", "arguments": arguments}
    worker.register_trigger({"type": type, "function_id": "shop::note", "config": config})


bind(
    "http",
    {"api_path": "/notes/{text}", "http_method": "POST", "status": 201},
    text={"in": "path"},
    times={"in": "query_or_body", "type": "integer"},
)
missed = {"in": "event", "name": "missed"}
bind("cron", {"expression": "@yearly", "name": "noting"}, text={"value": "a-tick"}, times=missed)
text, times = {"in": "event", "name": "text"}, {"in": "event", "name": "times"}
bind("durable:subscriber", {"topic": "notes"}, text=text, times=times)
bind("state", {"scope": "notes"}, text={"in": "event", "name": "key"}, times={"in": "event", "name": "new_value.times"})
bind(
    "stream",
    {"stream_name": "notes"},
    text={"in": "event", "name": "id"},
    times={"in": "event", "name": "event.data.times", "required": True},
)
bind("subscribe", {"topic": "notes.*"}, text={"in": "event"})
'''
PYTHON = """
from iii import register_worker

worker = register_worker()
worker.register_function("python::ask", lambda data: worker.trigger(data["of"], {"text": "a b c"}))
"""
NODE = """
import { registerWorker } from 'iii-sdk'

const worker = registerWorker(process.env.III_URL, { workerName: 'node' })
worker.registerFunction('node::ask', async ({ of }) => worker.trigger({ function_id: of, payload: { text: 'a b c' } }))

const request_format = {
  type: 'object',
  properties: { id: { type: 'integer' }, order: { $ref: '#/$defs/Order' } },
  required: ['id', 'order'],
  $defs: {
    Order: { type: 'object', properties: { item: { type: 'string' }, count: { type: 'integer' } }, required: ['item'] },
  },
}
worker.registerFunction(
  'node::order',
  async ({ id, order }) => {
    if (id === 0) throw Object.assign(new Error('no such order'), { code: 'not_found' })
    return { id, item: order.item, count: order.count ?? 1 }
  },
  { request_format },
)
const order = { id: { in: 'path', type: 'integer' }, order: { in: 'body', required: true } }
const config = { api_path: '/node/{id}', http_method: 'POST', status: 201, payload: 'arguments', arguments: order }
worker.registerTrigger({ type: 'http', function_id: 'node::order', config })
worker.registerTrigger({
  type: 'subscribe',
  function_id: 'node::order',
  config: {
    topic: 'node',
    payload: 'arguments',
    arguments: { id: { value: 9 }, order: { in: 'event', name: 'order' } },
  },
})
worker.registerTrigger({
  type: 'cron',
  function_id: 'node::order',
  config: { expression: '@yearly', payload: 'arguments', arguments: { id: { in: 'query' } } },
})
"""
TOML = """
[engine]
listen = "127.0.0.1:0"
[workers.http.config]
port = 0
[workers.cron]
[workers.queue]
[workers.state]
[workers.stream.config]
port = 0
[workers.pubsub]
[workers.observability.config]
prometheus = false
[workers.shop]
run = "shop.py"
[workers.python]
run = "python.py"
"""
NODE_TABLE = """
[workers.node]
run = "node node.mjs"
"""
RUST_TABLE = """
[workers.words]
run = "cargo run --quiet --manifest-path words/Cargo.toml"
ready_timeout = "15m"
pass_env = ["CARGO_*", "RUSTUP_*"]
"""
WITH_NODE = pytest.param(("node",), id="node", marks=official.needs_node)
WITH_RUST = pytest.param(("node", "words"), id="node and rust", marks=(pytest.mark.slow, pytest.mark.timeout(1200)))


class Shop:
    """The running project, its other languages, and the port of its http worker."""

    def __init__(self, project: Project, languages: tuple[str, ...]) -> None:
        self.project = project
        self.languages = languages
        self.port = int(project.hear(r"http://127").strip().rpartition(":")[2])

    def call(self, function_id: str, payload: Any = None) -> Any:
        caller = self.project.caller()
        try:
            return caller.result(function_id, payload)
        finally:
            caller.close()

    def call_when_there(self, function_id: str, payload: Any) -> Any:
        """Call a function of a program that may still be building or connecting."""
        caller = self.project.caller()
        try:
            while (answer := caller.call(function_id, payload)).get("error", {}).get("code") == "function_not_found":
                pass
            return answer.get("result", answer)
        finally:
            caller.close()

    def post(self, path: str, body: Any = None) -> Answer:
        return ask(self.port, "POST", path, body)

    def hear(self, text: str) -> None:
        self.project.hear(rf"@ noted {text}\b")


@pytest.fixture(scope="module", params=[WITH_NODE, WITH_RUST])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(SHOP)
    (folder / "python.py").write_text(PYTHON)
    (folder / "node.mjs").write_text(NODE)
    (folder / "node_modules").symlink_to(official.node_with() / "node_modules")
    tables = TOML + NODE_TABLE
    with pytest.MonkeyPatch.context() as patch:
        if "words" in request.param:
            patch.setenv("CARGO_TARGET_DIR", str(official.CACHE / "rust-target"))
            patch.setenv("CARGO_PROFILE_DEV_DEBUG", "0")
            ignored = shutil.ignore_patterns("target", ".iii")
            # New times for the files: cargo takes what is older than its last build for built.
            shutil.copytree(ROOT / "examples" / "rust", folder / "words", ignore=ignored, copy_function=shutil.copyfile)
            tables += RUST_TABLE
        (folder / "iii.toml").write_text(tables)
        with running_project(folder, BUILD) as project:
            yield Shop(project, request.param)


def test_one_function_answers_seven_paths_unchanged(shop: Shop) -> None:
    noted = {"noted": "tea tea"}
    answers = (shop.post("/notes/tea?times=2"), shop.post("/notes/tea", {"times": 2}))
    assert [(answer.status, answer.json) for answer in answers] == [(201, noted)] * 2
    assert shop.call("shop::note", {"text": "tea", "times": 2}) == noted

    command = [sys.executable, "-m", "cli.main", "trigger", "shop::note", "text=tea", "times=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=shop.project.folder, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == noted

    shop.call("cron::run", {"job": "noting"})
    shop.hear("a-tick x0")
    shop.call("iii::durable::publish", {"topic": "notes", "data": {"text": "a-job", "times": 3}})
    shop.hear("a-job x3")
    shop.call("state::set", {"scope": "notes", "key": "a-key", "value": {"times": 4}})
    shop.hear("a-key x4")
    item = {"stream_name": "notes", "group_id": "g", "item_id": "an-item", "data": {"times": 5}}
    shop.call("stream::set", item)
    shop.hear("an-item x5")
    shop.call("publish", {"topic": "notes.new", "data": "a-message"})
    shop.hear("a-message x1")

    for language in ("python", *shop.languages):
        asked = shop.call_when_there(f"{language}::ask", {"of": "shop::note"})
        assert asked == {"noted": "a b c"}, language


def test_the_config_of_every_trigger_type_knows_the_two_keys(shop: Shop) -> None:
    types = shop.call("engine::triggers::list", {"include_internal": True})["triggers"]
    assert len(types) >= 10
    for each in types:
        if each["id"] == "queue":
            continue  # its jobs are calls, and what they carry is their arguments
        schema = shop.call("engine::triggers::info", {"id": each["id"]}).get("configuration_schema", {})
        assert {"payload", "arguments"} <= schema.get("properties", {}).keys(), each["id"]


def test_what_does_not_fit_is_refused_in_the_words_of_each_path(shop: Shop) -> None:
    refused = shop.post("/notes/tea?times=x")
    assert (refused.status, refused.json["error"]["message"]) == (422, 'query.times: expected an integer, got "x"')
    refused = shop.post("/notes/tea", {"times": "x"})
    assert (refused.status, refused.json["error"]["message"]) == (422, 'body.times: expected an integer, got "x"')
    refused = shop.post("/notes/tea", {"tiems": 1})
    assert refused.status == 422
    assert "body.tiems: there is no such key; there are times" in refused.json["error"]["message"]
    shop.call("stream::set", {"stream_name": "notes", "group_id": "g", "item_id": "bad", "data": {}})
    shop.project.hear(
        r"the event gives shop::note no arguments: event\.event\.data\.times: expected a value, got nothing"
    )
    shop.call("publish", {"topic": "notes.new", "data": 5})
    shop.project.hear(r"shop::note.*text must be a string, got 5|text must be a string, got 5")


def test_functions_of_the_npm_sdk_get_their_arguments_by_the_same_data(shop: Shop) -> None:
    assert shop.call_when_there("node::order", {"id": 7, "order": {"item": "tea"}}) == {
        "id": 7,
        "item": "tea",
        "count": 1,
    }
    shop.project.hear(r"the cron trigger of node::order was refused|cron.*in must be \"event\", got \"query\"")
    answer = shop.post("/node/7", {"item": "tea", "count": 2})
    assert (answer.status, answer.json) == (201, {"id": 7, "item": "tea", "count": 2})
    for path, body, place in (
        ("/node/x", {"item": "tea"}, "path.id"),
        ("/node/7", {"item": 5}, "body.item"),
        ("/node/7", {}, "body.item"),
        ("/node/7", None, "body"),
    ):
        refused = shop.post(path, body)
        assert refused.status == 422, refused.body
        assert [each["path"] for each in refused.json["error"]["details"]["mistakes"]] == [place]
    shop.call("publish", {"topic": "node", "data": {"order": {"item": 5}}})
    shop.project.hear(r"order\.item must be a string, got 5")
    document = ask(shop.port, "GET", "/openapi.json").json
    operation = document["paths"]["/node/{id}"]["post"]
    assert operation["operationId"] == "node_order"
    assert operation["parameters"][0]["schema"] == {"type": "integer"}
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["required"] == ["item"]
