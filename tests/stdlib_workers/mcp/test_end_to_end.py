"""The official package's client over HTTP and stdio: tools of a Python, a Node and a standard worker, and no others."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any, cast
from urllib.parse import urlsplit

import anyio
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, TextContent, ToolListChangedNotification

from iii.config_schema import load_schema
from stdlib_workers.mcp.documents import FOLDER
from tests.support.live_project import BOUND, ROOT, Project, project

pytestmark = pytest.mark.timeout(120)

TOML = """
[engine]
listen = "127.0.0.1:0"
[workers.shop]
run = "shop.py"
[workers.state]
[workers.observability.config]
prometheus = { port = 0 }
[workers.mcp.config]
port = 0
tools = ["state::set", "shop::bare", "shop::undescribed"]
state = ["open*"]
resources = ["logs", "traces"]
introspection = true
max_result = 2048
"""
SHOP = '''
import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

@dataclass
class Found:
    id: str
    text: str

@worker.function("shop::add", metadata={"mcp": True})
def add(a: int, b: int = 2) -> int:
    """Add two numbers."""
    return a + b

@worker.function("shop::secret")
def secret() -> str:
    """Nobody has opened this."""
    return "hidden"

@worker.function("shop::undescribed")
def undescribed(a: int) -> int:
    return a

@worker.function("shop::count", metadata={"mcp": True})
def count(upto: int) -> Iterator[int]:
    """Count."""
    yield from range(upto)

@worker.function("shop::work", metadata={"mcp": True})
def work(steps: int) -> str:
    """Work, and say how far it is."""
    for step in range(steps):
        current_invocation().report_progress(step, total=steps, message=f"step {step}")
    return "done"

@worker.function("shop::fail", metadata={"mcp": True})
def fail() -> None:
    """Fail."""
    raise InvocationError("sold_out", "no more of these", details={"left": 0})

@worker.function("shop::find", metadata={"mcp": True})
def find(size: int, kind: str = "") -> Found:
    """Find an order."""
    return Found(id="1", text="x" * size)

@worker.function("shop::open_more")
def open_more() -> None:
    globals()["more"] = worker.register_function(
        "shop::more", lambda data: data, description="More.", metadata={"mcp": True}, request_format={"type": "object"})

@worker.function("shop::close_more")
def close_more() -> None:
    more.unregister()

@worker.function("shop::long", metadata={"mcp": True})
def long(size: int) -> str:
    """Return a long text."""
    return "x" * size

@worker.function("shop::endless", metadata={"mcp": True})
async def endless() -> AsyncIterator[int]:
    """Never end."""
    say("begun")
    try:
        while True:
            yield 1
            await asyncio.sleep(0.01)
    finally:
        say("cancelled")

worker.register_function("shop::bare", lambda data: data, description="No schema.")
'''
NODE = """
const send = (message) => process.stdout.write(JSON.stringify(message) + "\\n");
let rest = "";
process.stdin.setEncoding("utf8").on("data", (chunk) => {
  const lines = (rest + chunk).split("\\n");
  rest = lines.pop();
  for (const message of lines.filter((line) => line.trim()).map((line) => JSON.parse(line))) {
    if (message.type === "ping") send({ type: "pong" });
    if (message.type === "stop") process.exit(0);
    if (message.type === "invokefunction" && message.invocation_id && message.function_id === "node::hello") {
      const { invocation_id, data } = message;
      send({ type: "invocationresult", invocation_id, result: { message: `Hello, ${data.name}!` } });
    }
  }
});
const about = { runtime: "node", version: process.version, name: process.env.III_WORKER_NAME, pid: process.pid };
send({ type: "invokefunction", function_id: "engine::workers::register", data: about, action: { type: "void" } });
send({
  type: "registerfunction",
  id: "node::hello",
  description: "Greet somebody.",
  metadata: { mcp: true },
  request_format: { type: "object", properties: { name: { type: "string" } }, required: ["name"] },
});
send({ type: "ready" });
"""
HAS_NODE = shutil.which("node") is not None
Use = Callable[[Client], Awaitable[None]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("shop")
    toml = TOML
    if HAS_NODE:
        toml += '[workers.greeter]\nrun = "node greeter.mjs"\n'
        (folder / "greeter.mjs").write_text(NODE)
    with project(folder, toml, {"shop": SHOP}) as made:
        yield made


def url_of(running: Project) -> str:
    line = running.wait("as bearer token")[-1]
    return next(word for word in line.split() if word.startswith("http://"))


def key_of(running: Project) -> str:
    return (running.folder / ".iii" / "mcp.key").read_text()


@asynccontextmanager
async def over_http(running: Project, mode: str, **options: Any) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key_of(running)}"}, timeout=BOUND) as http_client,
        Client(streamable_http_client(url_of(running), http_client=http_client), mode=mode, **options) as client,
    ):
        yield client


@asynccontextmanager
async def over_stdio(running: Project, mode: str, **options: Any) -> AsyncIterator[Client]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("III_")}
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "cli.main", "mcp"],
        cwd=running.folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )
    async with Client(parameters, mode=mode, **options) as client:
        yield client


WAYS = [(over_http, "auto"), (over_http, "legacy"), (over_stdio, "auto"), (over_stdio, "legacy")]
every_way = pytest.mark.parametrize(("way", "mode"), WAYS, ids=lambda value: getattr(value, "__name__", value))


def run(way: Any, running: Project, mode: str, use: Use) -> None:
    """Connect and use the client, within a bound."""

    async def main() -> None:
        with anyio.fail_after(BOUND * 2):
            async with way(running, mode) as client:
                await use(client)

    anyio.run(main)


def texts(result: CallToolResult) -> list[str]:
    return [cast("TextContent", block).text for block in result.content]


@every_way
def test_what_the_tables_open_is_listed_and_called(running: Project, way: Any, mode: str) -> None:
    async def use(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        own = {name for name in tools if not name.startswith("iii_")}
        wanted = {"shop__add", "shop__count", "shop__work", "shop__fail", "shop__long", "shop__endless", "state__set"}
        wanted.add("shop__find")
        assert own == wanted | ({"node__hello"} if HAS_NODE else set())
        assert (tools["shop__add"].title, tools["shop__add"].description) == ("shop::add", "Add two numbers.")
        assert tools["shop__add"].input_schema["required"] == ["a"]
        assert texts(await client.call_tool("shop__add", {"a": 3})) == ["5"]
        place = {"scope": "open", "key": "a/b", "value": [1]}
        assert json.loads(texts(await client.call_tool("state__set", place))[0])["new_value"] == [1]
        if HAS_NODE:
            assert texts(await client.call_tool("node__hello", {"name": "Ada"})) == ['{"message":"Hello, Ada!"}']

    run(way, running, mode, use)


@every_way
def test_items_and_reports_are_progress(running: Project, way: Any, mode: str) -> None:
    async def use(client: Client) -> None:
        seen: list[tuple[float, float | None, str | None]] = []

        async def on_progress(done: float, total: float | None, message: str | None) -> None:
            seen.append((done, total, message))

        counted = await client.call_tool("shop__count", {"upto": 3}, progress_callback=on_progress)
        assert texts(counted) == ["0", "1", "2"]
        assert seen == [(1, None, "0"), (2, None, "1"), (3, None, "2")]
        seen.clear()
        assert texts(await client.call_tool("shop__work", {"steps": 3}, progress_callback=on_progress)) == ["done"]
        assert seen[:3] == [(0, 3, "step 0"), (1, 3, "step 1"), (2, 3, "step 2")]
        assert all(after[0] > before[0] for before, after in pairwise(seen))
        assert texts(await client.call_tool("shop__count", {"upto": 0})) == ["null"]

    run(way, running, mode, use)


@every_way
def test_failures_say_code_and_details_and_long_results_are_cut_with_a_word(
    running: Project, way: Any, mode: str
) -> None:
    async def use(client: Client) -> None:
        failed = await client.call_tool("shop__fail", {})
        assert failed.is_error
        assert texts(failed)[0].startswith("sold_out: ")
        assert '{"left":0}' in texts(failed)[0]
        refused = await client.call_tool("shop__add", {"a": "three"})
        assert refused.is_error
        assert "a must be an integer" in texts(refused)[0]
        (text,) = texts(await client.call_tool("shop__long", {"size": 100_000}))
        assert text.endswith("x\n[cut: 100000 bytes, the limit is 2048]")
        many = texts(await client.call_tool("shop__count", {"upto": 1000}))
        assert many[-1].startswith("[cut: ")
        assert len(many) - 1 + int(many[-1].split()[1]) == 1000

    run(way, running, mode, use)


@every_way
def test_a_result_with_the_schema_of_an_object_is_structured(running: Project, way: Any, mode: str) -> None:
    async def use(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        schema = tools["shop__find"].output_schema
        assert schema is not None
        assert (schema["type"], set(schema["properties"])) == ("object", {"id", "text"})
        assert [tools[name].output_schema for name in ("shop__add", "shop__count", "shop__long")] == [None] * 3
        found = await client.call_tool("shop__find", {"size": 3})
        assert found.structured_content == {"id": "1", "text": "xxx"}
        assert json.loads(texts(found)[0]) == found.structured_content
        place = {"scope": "open", "key": "s", "value": 1}
        stored = await client.call_tool("state__set", place)
        assert stored.structured_content == json.loads(texts(stored)[0])
        # One that is too long cannot be cut and still be what the schema says.
        long = await client.call_tool("shop__find", {"size": 5000})
        assert (long.is_error, long.structured_content) == (True, None)
        assert "[cut" in texts(long)[-1]

    run(way, running, mode, use)


async def has_more(client: Client) -> bool:
    return "shop__more" in {tool.name for tool in (await client.list_tools()).tools}


STEPS = (("shop::open_more", True), ("shop::close_more", False))


@pytest.mark.parametrize("way", [over_http, over_stdio])
def test_a_client_that_listens_is_told_when_tools_come_and_go(running: Project, way: Any) -> None:
    async def use(client: Client) -> None:
        await has_more(client)
        async with client.listen(tools_list_changed=True) as changes:
            for function_id, is_there in STEPS:
                await anyio.to_thread.run_sync(running.call, function_id)
                async for _ in changes:
                    if await has_more(client) is is_there:
                        break

    run(way, running, "auto", use)


@pytest.mark.parametrize("way", [over_http, over_stdio])
def test_an_older_client_is_told_on_its_connection(running: Project, way: Any) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()

    async def note(message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            heard.put_nowait(message)

    async def use(client: Client) -> None:
        assert client.server_capabilities.tools.list_changed
        for function_id, is_there in STEPS:
            await has_more(client)
            await anyio.to_thread.run_sync(running.call, function_id)
            await heard.get()
            assert await has_more(client) is is_there
        assert heard.empty()

    run(partial(way, message_handler=note), running, "legacy", use)


@every_way
def test_what_is_not_open_cannot_be_reached(running: Project, way: Any, mode: str) -> None:
    running.call("state::set", {"scope": "closed", "key": "k", "value": "hidden"})

    async def use(client: Client) -> None:
        for name in ("shop__secret", "shop::secret", "shop__bare", "shop__undescribed", "engine__workers__stop", "no"):
            with pytest.raises(MCPError, match="there is no tool"):
                await client.call_tool(name, {})
        for uri in (
            "iii://state/closed",
            "iii://state/closed/k",
            "iii://state",
            "iii://docs/../iii",
            "file:///etc/passwd",
        ):
            with pytest.raises(MCPError, match="there is no resource"):
                await client.read_resource(uri)
        uris = {str(resource.uri) for resource in (await client.list_resources()).resources}
        assert "iii://state/closed" not in uris

    run(way, running, mode, use)


@every_way
def test_resources_and_the_projects_own_tools_can_be_read(running: Project, way: Any, mode: str) -> None:
    running.call("state::set", {"scope": "open", "key": "a/b", "value": [1]})

    async def use(client: Client) -> None:
        uris = {str(resource.uri) for resource in (await client.list_resources()).resources}
        assert {"iii://docs/mcp", "iii://logs", "iii://traces", "iii://state/open"} <= uris
        forms = {form.uri_template for form in (await client.list_resource_templates()).resource_templates}
        assert forms == {
            *("iii://logs/{level}", "iii://traces/{trace_id}", "iii://state/{scope}", "iii://state/{scope}/{key}")
        }
        (page,) = (await client.read_resource("iii://docs/mcp")).contents
        assert (FOLDER / "mcp.md").read_text().startswith(cast("Any", page).text.partition("\n[cut: ")[0])
        for uri, text in (("iii://state/open/a%2Fb", "[1]"), ("iii://state/open", '{"key":"a/b","value":[1]}')):
            (found,) = (await client.read_resource(uri)).contents
            assert text in cast("Any", found).text
        (found,) = (await client.read_resource("iii://logs")).contents
        assert cast("Any", found).text.startswith("[")
        workers = texts(await client.call_tool("iii_workers", {}))[0]
        assert '"name":"shop","namespace":"default","state":"ready"' in workers
        assert '"function_id":"shop::secret"' in texts(await client.call_tool("iii_functions", {"search": "secret"}))[0]
        assert '"file":"shop.py"' in texts(await client.call_tool("iii_function", {"function_id": "shop::add"}))[0]
        assert '"actions":"Trigger actions. ' in texts(await client.call_tool("iii_docs", {}))[0]
        assert texts(await client.call_tool("iii_docs", {"page": "cron"}))[0].startswith("# Cron")
        for wrong in ({"page": "../README"}, {"page": 7}, {"pages": "cron"}):
            assert (await client.call_tool("iii_docs", wrong)).is_error
        while (
            "sold_out"
            not in texts(await client.call_tool("iii_failures", {"function_id": "shop::fail", "limit": 1}))[0]
        ):
            await client.call_tool("shop__fail", {})

    run(way, running, mode, use)


@every_way
def test_a_client_that_gives_up_cancels_the_call(running: Project, way: Any, mode: str) -> None:
    before = len(running.lines)

    async def use(client: Client) -> None:
        async with anyio.create_task_group() as tasks:

            async def on_progress(*_: object) -> None:
                tasks.cancel_scope.cancel()

            await client.call_tool("shop__endless", {}, progress_callback=on_progress)

    run(way, running, mode, use)
    running.wait("cancelled", after=before)


def ask(url: str, headers: dict[str, str], method: str = "POST", path: str = "/mcp", body: bytes = b"{}") -> int:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=BOUND)
    try:
        connection.request(method, path, body, {"content-type": "application/json", **headers})
        return connection.getresponse().status
    finally:
        connection.close()


def test_without_the_key_nothing_is_answered(running: Project) -> None:
    url, key = url_of(running), key_of(running)
    token = (running.folder / ".iii" / "run" / "token").read_text()
    good = {"Authorization": f"Bearer {key}"}
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {token}"},
        {"Authorization": key},
    ):
        assert ask(url, headers) == 401
        assert ask(url, headers, path=f"/mcp?key={key}") == 401
    assert ask(url, {**good, "Host": "evil.example"}) == 421
    assert ask(url, {**good, "Origin": "https://evil.example"}) == 403
    assert ask(url, good, "GET") == 406
    assert ask(url, good | {"Accept": "text/event-stream", "MCP-Protocol-Version": "2026-07-28"}, "GET") == 405
    assert ask(url, good, "DELETE") == 405
    assert ask(url, good, path="/other") == 404
    assert ask(url, good, body=b" " * (1024 * 1024 + 1)) == 413
    assert ask(url, good | {"Accept": "application/json, text/event-stream"}) == 400  # let in: {} is no message

    async def refused() -> None:
        async with httpx2.AsyncClient() as bare, Client(streamable_http_client(url, http_client=bare)):
            pytest.fail("a client without the key has been let in")

    with pytest.RaisesGroup(MCPError, flatten_subgroups=True):
        anyio.run(refused)


def test_the_commands_say_what_is_missing(running: Project, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("III_")}
    environment["PYTHONPATH"] = str(ROOT)

    def iii(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli.main", *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    (tmp_path / "iii.toml").write_text("[workers.state]\n")
    done = iii("mcp")
    assert (done.returncode, done.stdout) == (2, "")
    assert "has no [workers.mcp]" in done.stderr
    assert "iii add mcp" in done.stderr
    assert iii("add", "mcp").returncode == 0
    done = iii("mcp")
    assert (done.returncode, done.stdout) == (3, "")
    assert "no engine is running" in done.stderr
    assert load_schema(ROOT / "stdlib_workers", "mcp") is not None
    assert "max_result" in iii("add", "mcp", "--help").stdout
    done = iii("mcp", "--file", str(running.folder / "iii.toml"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("version", [None, "1.27.0"])
def test_without_the_package_the_worker_says_how_to_get_it(tmp_path: Path, version: str | None) -> None:
    packages = Path(anyio.__file__).parents[1]
    for entry in packages.iterdir():
        if not entry.name.startswith("mcp"):
            (tmp_path / entry.name).symlink_to(entry)
    if version is not None:
        (tmp_path / f"mcp-{version}.dist-info").mkdir()
        (tmp_path / f"mcp-{version}.dist-info" / "METADATA").write_text(f"Name: mcp\nVersion: {version}\n")
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-m", "stdlib_workers.mcp"],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'mcp>=2.3,<3'" in done.stderr
    assert (version is None) != (f"there is {version}" in done.stderr)


def test_functions_that_cannot_be_tools_are_named(running: Project) -> None:
    found = running.call("mcp::tools", {})
    assert found["tools"]["shop__add"] == "shop::add"
    assert (found["without_description"], found["without_schema"]) == (["shop::undescribed"], ["shop::bare"])


def test_a_restarted_worker_goes_on_on_the_same_port_with_the_same_key(running: Project) -> None:
    url, key = url_of(running), key_of(running)
    running.call("engine::workers::restart", {"name": "mcp"})
    assert (url_of(running), key_of(running)) == (url, key)

    async def use(client: Client) -> None:
        assert texts(await client.call_tool("shop__add", {"a": 1})) == ["3"]

    run(over_http, running, "auto", use)


RUBBISH = [
    b"",
    b"\x00\xff\xfe",
    b"hello",
    b"[]",
    b"{}",
    b"null",
    b"5",
    b'"text"',
    b'{"jsonrpc": "2.0"}',
    b'{"jsonrpc": "1.0", "id": 1, "method": "tools/list"}',
    b'{"jsonrpc": "2.0", "id": {}, "method": "tools/list"}',
    b'{"jsonrpc": "2.0", "id": null, "method": "tools/list"}',
    b'{"jsonrpc": "2.0", "id": 1e400, "method": "tools/list"}',
    b'{"jsonrpc": "2.0", "id": 1, "method": 5}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "no/such"}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": []}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": {}, "arguments": 7}}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "\\ud800"}}',
    b'{"jsonrpc": "2.0", "id": 1, "result": {}}',
    b'{"jsonrpc": "2.0", "id": 1, "error": "no"}',
    b'{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}}',
    b'{"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": [], "progress": "x"}}',
    b'[{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}]',
    b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"jsonrpc": "2.0", "id": 1, "method": "' + b"x" * 2_000_000 + b'"}',
]
GREETING = {
    "jsonrpc": "2.0",
    "id": "hello",
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
LIST = {"jsonrpc": "2.0", "id": "list", "method": "tools/list", "params": {}}


def test_rubbish_over_stdio_costs_nothing_but_itself(running: Project) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("III_")}
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "mcp"],
        cwd=running.folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        errors: list[bytes] = []
        drain = Thread(target=lambda: errors.append(process.stderr.read()))  # type: ignore[union-attr]
        drain.start()

        def ask(message: dict[str, Any]) -> dict[str, Any]:
            process.stdin.write(json.dumps(message).encode() + b"\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            for line in process.stdout:  # type: ignore[union-attr]
                answer: dict[str, Any] = json.loads(line)
                if answer.get("id") == message["id"]:
                    return answer
            raise AssertionError("it has ended")

        assert "result" in ask(GREETING)
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        process.stdin.write(json.dumps(ready).encode() + b"\n")
        for number, line in enumerate(RUBBISH):
            process.stdin.write(line.replace(b"\n", b" ") + b"\n")
            tools = ask({**LIST, "id": f"list-{number}"})["result"]["tools"]
            assert "shop__add" in {tool["name"] for tool in tools}, line[:80]
        process.stdin.close()
        assert process.wait(BOUND) == 0
        drain.join(BOUND)
    assert b"Traceback" not in errors[0], errors[0][-2000:].decode()


def test_rubbish_over_http_is_refused_and_costs_nothing_but_itself(running: Project) -> None:
    url, headers = url_of(running), {"Authorization": f"Bearer {key_of(running)}"}
    headers |= {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    seen = len(running.lines)
    for body in RUBBISH:
        assert ask(url, headers, body=body) in (200, 202, 400, 404, 413), body[:80]
        assert ask(url, headers, body=json.dumps(LIST).encode()) == 200, body[:80]
    assert ask(url, headers | {"Content-Type": "text/plain"}) in (400, 415)
    assert ask(url, headers | {"Accept": "image/png"}) in (400, 406)
    assert ask(url, headers | {"MCP-Protocol-Version": "x"}, body=json.dumps(LIST).encode()) == 400
    assert running.said("Traceback", seen) == []
