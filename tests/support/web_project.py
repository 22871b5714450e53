"""A real engine with the http worker and one worker behind it, and raw connections to its port."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.asgi_client import Answer
from tests.support.live_project import BOUND, Project

QUIET = '[engine]\nlisten = "off"\n'
TOML = """
[workers.http.config]
port = 0
{config}
[workers.web]
run = "web.py"
"""


class Web:
    """The project and its port."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.port = int(project.wait("| http://")[0].rpartition(":")[2])

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Send one request on a connection of its own; a `body` that is no bytes is sent as JSON."""
        return ask(self.port, method, path, body, headers)

    def wait_for(self, *paths: str) -> None:
        """Wait until the document has these paths: on a busy machine a worker may count as ready before its last."""
        deadline = time.monotonic() + BOUND
        while missing := set(paths) - self.ask("GET", "/openapi.json").json["paths"].keys():
            assert time.monotonic() < deadline, f"{missing} did not come"

    def send_raw(self, data: bytes, *, then_end: bool = False) -> bytes:
        """Send bytes and return all that comes back until the server closes; `then_end` half-closes our side."""
        with socket.create_connection(("127.0.0.1", self.port), BOUND) as connection:
            connection.sendall(data)
            if then_end:
                connection.shutdown(socket.SHUT_WR)
            return read_all(connection)


def ask(port: int, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
    """Send one request on a connection of its own; a `body` that is no bytes is sent as JSON."""
    sent = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent.setdefault("content-type", "application/json")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND)
    try:
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())
    finally:
        connection.close()


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    data = b""
    while part := connection.recv(65536):
        data += part
    return data


@contextmanager
def web(folder: Path, worker: str, config: str = "", engine: str = QUIET, *, command: str = "start") -> Iterator[Web]:
    """A running project whose worker `web` has this source."""
    made = Project(folder, engine + TOML.format(config=config), {"web": worker})
    made.start(command)
    try:
        yield Web(made)
    finally:
        made.stop()
