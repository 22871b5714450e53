"""The console's server against real requests: its start, who is let in, what is kept secret, what read-only refuses."""

from __future__ import annotations

import http.client
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from iii.one_time_keys import make_key
from tests.stdlib_workers.console.conftest import iii
from tests.support.live_project import BOUND, Project, project
from tests.support.terminal import Terminal

pytestmark = pytest.mark.timeout(120)

TOML = """
[engine]
listen = "127.0.0.1:0"
[workers.shop]
run = "shop.py"
[workers.state]
[workers.observability.config]
prometheus = false
"""
SHOP = """
worker.register_function("shop::echo", lambda data: data)
"""
READ_ONLY = TOML + "[workers.console.config]\nport = 0\nread_only = true\n"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any


class Client:
    """Requests as a browser's page of the console would send them, with single headers changed."""

    def __init__(self, running: Project) -> None:
        self.project = running
        link: str = json.loads(iii(running.folder, "console", "--json").stdout)["link"]
        self.host = link.removeprefix("http://").partition("/")[0]
        self.cookie = ""

    def ask(self, method: str, path: str, body: Any = None, **headers: str | None) -> Answer:
        own: dict[str, str | None] = {"Host": self.host, "Sec-Fetch-Site": "same-origin", "Cookie": self.cookie or None}
        if method == "POST":
            own["Origin"] = f"http://{self.host}"
        own |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.host, timeout=BOUND)
        content = None if body is None else json.dumps(body).encode()
        connection.putrequest(method, path, skip_host=True)
        for name, value in own.items():
            if value is not None:
                connection.putheader(name, value)
        if content is not None:
            connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        is_json = (response.headers["content-type"] or "").startswith("application/json")
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, json.loads(text) if is_json else text)

    def log_in(self) -> str:
        """Use a new key; return it."""
        key = make_key(self.project.folder / ".iii")
        answer = self.ask("POST", "/_console/session", {"key": key})
        assert answer.status == 200, answer
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return key

    def call(self, function_id: str, payload: Any = None, **fields: Any) -> Any:
        answer = self.ask("POST", "/_console/call", {"function_id": function_id, "payload": payload, **fields})
        assert answer.status == 200, answer
        return answer.body


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with project(tmp_path_factory.mktemp("shop"), TOML, {"shop": SHOP}, "dev") as running:
        made = Client(running)
        made.log_in()
        yield made


def names(running: Project) -> set[str]:
    return {row["name"] for row in running.call("engine::workers::list")["workers"]}


def test_the_worker_starts_for_the_first_visitor_and_the_key_is_kept_out_of_output_that_is_no_terminal(
    tmp_path: Path,
) -> None:
    with project(tmp_path, TOML, {"shop": SHOP}, "dev") as running:
        assert names(running) == {"shop", "state", "observability"}
        (line,) = running.wait("console  http://127.0.0.1:")
        assert "#" not in line
        assert Client(running).ask("GET", "/").status == 200
        running.wait("+ console")
        assert "console" in names(running)
        iii_toml = tmp_path / "iii.toml"
        iii_toml.write_text(iii_toml.read_text() + "[workers.pubsub]\n")
        running.wait("+ pubsub")  # a changed project keeps the console that it does not name
        assert "console" in names(running)
        named = iii_toml.read_text()
        iii_toml.write_text(named + "[workers.console.config]\nread_only = true\n")
        client = Client(running)
        client.log_in()
        # The process before answers until it has stopped. These loops are ended by the test's timeout.
        while not client.ask("GET", "/_console/session").body["read_only"]:
            pass
        iii_toml.write_text(named)  # no longer named: as it was before
        while client.ask("GET", "/_console/session").body["read_only"]:
            pass


def test_a_terminal_shows_a_link_that_lets_in_once(tmp_path: Path) -> None:
    (tmp_path / "iii.toml").write_text('[engine]\nlisten = "127.0.0.1:0"\n[workers.pubsub]\n')
    with Terminal(tmp_path, "dev", columns=160) as terminal:
        terminal.read_until(lambda text: "ready in" in text)
        shown = terminal.written.decode(errors="replace")
        found = re.search(r"http://(127\.0\.0\.1:\d+)/#key=([\w-]{43})", shown)
        assert found is not None, shown
        for status in (200, 401):
            connection = http.client.HTTPConnection(found[1], timeout=BOUND)
            headers = {"Origin": f"http://{found[1]}"}
            connection.request("POST", "/_console/session", json.dumps({"key": found[2]}), headers)
            assert connection.getresponse().status == status
            connection.close()


def test_a_project_goes_without_it_if_it_is_told_to(tmp_path: Path) -> None:
    toml = '[engine]\nlisten = "127.0.0.1:0"\n[workers.pubsub]\n'
    with project(tmp_path, toml, {}, "start") as running:
        assert running.said("console") == []
        refused = iii(tmp_path, "console")
        assert refused.returncode == 2
        assert "this project has no console" in refused.stderr
        assert "iii add console" in refused.stderr
    assert iii(tmp_path, "console").returncode == 3  # no engine


def test_iii_console_opens_a_browser_without_showing_it_the_key(client: Client, tmp_path: Path) -> None:
    """The browser here writes down how it was started."""
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\nprintf "%s" "$*" > {tmp_path}/told\n')
    script.chmod(0o700)
    done = iii(client.project.folder, "console", BROWSER=f"{script} %s")
    assert done.stdout == f"opened http://{client.host}\n", done
    told = (tmp_path / "told").read_text()
    page = Path(told.removeprefix("file://"))
    assert page.stat().st_mode & 0o077 == 0
    found = re.search(r"#key=([\w-]{43})", page.read_text())
    assert found is not None
    assert found[1] not in told
    assert json.loads(iii(client.project.folder, "console", "--json").stdout)["link"].startswith(
        f"http://{client.host}/#key="
    )


def test_a_key_works_once_and_a_wrong_one_never(client: Client) -> None:
    key = client.log_in()
    for wrong in (key, "", None, "x" * 43, ["a"], "../sessions/a"):
        answer = client.ask("POST", "/_console/session", {"key": wrong})
        assert (answer.status, answer.body["error"]["code"]) == (401, "wrong_key")
        assert "set-cookie" not in answer.headers


def test_the_key_and_the_session_are_in_no_file_environment_command_line_or_output(client: Client) -> None:
    key = client.log_in()
    secrets = [key, client.cookie.partition("=")[2]]
    client.call("shop::echo", {"a": 1})
    texts = ["\n".join(client.project.lines)]
    for folder, _, files in os.walk(client.project.folder):
        texts += [Path(folder, file).read_bytes().decode("latin-1") for file in files if not file.endswith(".sock")]
    root = psutil.Process(client.project.process.pid)
    for process in (root, *root.children(recursive=True)):
        texts += [*process.cmdline(), *process.environ().values()]
    assert len(texts) > 50
    assert [secret for secret in secrets for text in texts if secret in text] == []


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (421, {"Host": "evil.example"}),
        (421, {"Host": "rebound.example:3113"}),
        (403, {"Origin": "http://evil.example"}),
        (403, {"Origin": "http://127.0.0.1:3111"}),
        (403, {"Origin": "null"}),
        (403, {"Origin": None}),
        (403, {"Sec_Fetch_Site": "cross-site"}),
        (403, {"Sec_Fetch_Site": "same-site"}),
        (401, {"Cookie": None}),
        (401, {"Cookie": "iii_console_3113=x"}),
    ],
)
def test_what_is_not_the_consoles_own_page_is_refused(
    client: Client, status: int, headers: dict[str, str | None]
) -> None:
    answer = client.ask("POST", "/_console/call", {"function_id": "shop::echo"}, **headers)
    assert answer.status == status
    assert answer.body["error"]["message"]
    assert "access-control-allow-origin" not in answer.headers


def test_every_answer_has_the_headers_that_keep_others_out(client: Client) -> None:
    for path in ("/", "/traces", "/app.js", "/nothing.js", "/_console/session", "/_console/nothing"):
        headers = client.ask("GET", path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
    assert client.ask("GET", "/nothing.js").status == 404
    assert client.ask("GET", "/../../iii.toml").status in (200, 404)  # the page, never the file
    assert b"[workers" not in client.ask("GET", "/../../../../iii.toml").body


def test_what_is_no_call_gets_a_sentence(client: Client) -> None:
    for body in (None, [], {"function_id": 7}, {"function_id": "a", "bad": 1}):
        answer = client.ask("POST", "/_console/call", body)
        assert answer.status == 400
        assert answer.body["error"]["message"]
    assert client.ask("POST", "/_console/call", {"function_id": "a", "payload": "x" * 5_000_000}).status == 413
    missing = client.call("shop::ech")
    assert missing["error"]["code"] == "function_not_found"
    assert "shop::echo" in missing["error"]["message"]


def test_writes_are_recorded_and_reads_are_not(client: Client) -> None:
    written = client.call("state::set", {"scope": "a", "key": "b", "value": 1})
    assert client.call("state::get", {"scope": "a", "key": "b"}) == {"result": 1}
    names_of_spans: set[str] = set()
    while not {"console state::set", "call state::set"} <= names_of_spans:  # ended by the test's timeout
        query = {"trace_id": written["trace_id"]}
        names_of_spans = {span["name"] for span in client.project.call("engine::traces::list", query)["spans"]}
    spans = client.project.call(
        "engine::traces::list", {"search_all_spans": True, "include_internal": True, "limit": 1000}
    )
    assert [span["name"] for span in spans["spans"] if span["name"] == "call state::get"] == []


def test_read_only_refuses_every_write_on_the_server(tmp_path: Path) -> None:
    with project(tmp_path, READ_ONLY, {"shop": SHOP}) as running:
        client = Client(running)
        client.log_in()
        assert client.ask("GET", "/_console/session").body["read_only"] is True
        for function_id in (
            "shop::echo",
            "state::set",
            "engine::workers::restart",
            "iii::queue::purge",
            "engine::traces::clear",
        ):
            assert client.call(function_id, {})["error"]["code"] == "read_only"
            answer = client.ask("POST", "/_console/stream", {"function_id": function_id})
            assert json.loads(answer.body)["error"]["code"] == "read_only"
        # A read becomes a write if it is queued.
        assert client.call("state::get", {}, action={"type": "enqueue", "queue": "q"})["error"]["code"] == "read_only"
        assert client.call("engine::workers::list")["result"]["workers"]
