"""The protocol's own suite for servers against the HTTP endpoint; it knows no stdin and stdout.

Its server is one that is written for it, with content and prompts that functions of a project do not have. What is left
out stands in MISSING with the reason, and the suite itself fails when one of these holds all the same.
"""

from __future__ import annotations

import http.client
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_RDWR, socket
from threading import Thread
from urllib.parse import urlsplit

import pytest

from tests.support import official
from tests.support.live_project import BOUND, Project, project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Scenarios that this server cannot show, by what it would need.
MISSING = {
    "the results of functions are JSON and text": (
        "tools-call-image",
        "tools-call-audio",
        "tools-call-embedded-resource",
        "tools-call-mixed-content",
    ),
    "nothing is asked of the client: no session is kept": (
        "tools-call-sampling",
        "tools-call-elicitation",
        "elicitation-sep1034-defaults",
        "elicitation-sep1330-enums",
    ),
    "no stream is taken up again where it broke: no session is kept": ("server-sse-polling",),
    "logs are resources": ("logging-set-level", "tools-call-with-logging"),
    "only the list of tools is told of": ("resources-subscribe", "resources-unsubscribe"),
    "the resources of a project are iii://, the suite reads test://": (
        "resources-read-text",
        "resources-read-binary",
        "resources-templates-read",
    ),
    "a project has no prompts": (
        "completion-complete",
        "prompts-list",
        "prompts-get-simple",
        "prompts-get-with-args",
        "prompts-get-embedded-resource",
        "prompts-get-with-image",
    ),
}

TOML = """
[engine]
listen = "127.0.0.1:0"
[workers.suite]
run = "suite.py"
[workers.mcp.config]
port = 0
"""
SUITE = '''
import json
from collections.abc import Iterator

MCP = {"mcp": True}


@worker.function("test_simple_text", metadata=MCP)
def simple_text() -> str:
    """Return the text that the suite expects."""
    return "This is a simple text response for testing."


@worker.function("test_error_handling", metadata=MCP)
def error_handling() -> str:
    """Fail."""
    raise ValueError("This tool intentionally returns an error for testing")


@worker.function("test_tool_with_progress", metadata=MCP)
def tool_with_progress() -> Iterator[int]:
    """Make three steps."""
    yield from (0, 50, 100)


@worker.function("test_reconnection", metadata=MCP)
def reconnection() -> str:
    """Answer."""
    return "here"


worker.register_function(
    "json_schema_2020_12_tool",
    lambda payload: json.dumps(payload),
    description="Has the words of JSON Schema 2020-12.",
    metadata=MCP,
    request_format={
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {"type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}
        },
        "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
        "additionalProperties": False,
    },
)
'''


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with project(tmp_path_factory.mktemp("suite"), TOML, {"suite": SUITE}) as made:
        yield made


@contextmanager
def with_key(url: str, key: str) -> Iterator[str]:
    """Show the key with each request, which the suite cannot; yield the address for it."""
    target = urlsplit(url).netloc
    sockets: list[socket] = []

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            here = f"127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined] - of the server below
            fields = {name: value.replace(here, target) for name, value in self.headers.items()}
            fields["Authorization"] = f"Bearer {key}"
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            self.close_connection = True
            with closing(http.client.HTTPConnection(target)) as connection, suppress(OSError):
                connection.request(self.command, self.path, body, fields)
                sockets.append(connection.sock)
                with connection.getresponse() as answer:
                    self.answer(answer)

        def answer(self, answer: http.client.HTTPResponse) -> None:
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("connection", "close")
            self.end_headers()
            while piece := answer.read1(65536):
                self.wfile.write(piece)
                self.wfile.flush()

        do_GET = do_POST = do_DELETE = forward

        def log_message(self, format: str, *args: object) -> None:
            """The requests are the suite's."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        server.daemon_threads = False  # they are waited for
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/mcp"
        finally:
            server.shutdown()
            thread.join()
            for one in sockets:
                with suppress(OSError):  # its answer has ended
                    one.shutdown(SHUT_RDWR)


def test_the_suite_of_the_protocol_passes_but_for_what_a_project_does_not_have(
    running: Project, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    command = official.mcp_conformance()
    expected = tmp_path / "missing.yaml"
    expected.write_text("server:\n" + "".join(f"  - {name}\n" for names in MISSING.values() for name in names))
    url = next(word for word in running.wait("as bearer token")[-1].split() if word.startswith("http://"))
    with with_key(url, (running.folder / ".iii" / "mcp.key").read_text()) as address:
        done = subprocess.run(
            [*command, "server", "--url", address, "--suite", "all", "--expected-failures", str(expected)],
            cwd=tmp_path,
            env=official.plain_environment(),
            capture_output=True,
            text=True,
            timeout=BOUND * 6,
            check=False,
        )
    summary = done.stdout[done.stdout.find("=== SUMMARY ===") :]
    record_property("mcp_conformance", summary)
    assert done.returncode == 0, summary + done.stderr
    for name in ("server-initialize", "ping", "tools-list", "dns-rebinding-protection", "json-schema-2020-12"):
        assert f"✓ {name}: " in summary
