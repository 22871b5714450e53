"""/healthz and /readyz: what the engine says of itself, as a status."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.http.health import Health
from tests.support.asgi_client import Site
from tests.support.live_project import free_ports, project


def site(answer: Any) -> Site:
    """One route with a parameter, and the answer of `engine::health`."""
    made = Site({"f::f": lambda _: {"body": "route"}, "engine::health": answer})
    made.application.literals = [Health(made._trigger)]
    return made


@pytest.mark.parametrize(
    ("status", "expected"), [("ready", 200), ("starting", 503), ("degraded", 503), ("stopping", 503)]
)
def test_only_a_project_that_is_ready_is_ready_and_any_that_answers_is_healthy(status: str, expected: int) -> None:
    health = {"status": status, "workers": [{"name": "shop", "state": "failed"}]}
    made = site(lambda _: health)
    ready = made.ask("GET /readyz")
    assert (ready.status, ready.json) == (expected, health)
    assert ready.headers["cache-control"] == "no-store"
    assert (made.ask("GET /healthz").status, made.ask("GET /healthz").json) == (200, {"status": "ok"})


def test_an_engine_that_does_not_answer_is_neither() -> None:
    def fail(_: Any) -> None:
        raise InvocationError("TIMEOUT", "no answer within 2000 ms")

    made = site(fail)
    assert [made.ask(f"GET {path}").status for path in ("/healthz", "/readyz")] == [503, 503]
    assert made.ask("GET /readyz").json == {"status": "unavailable", "error": "no answer within 2000 ms"}


def test_a_route_of_the_project_goes_first_unless_its_path_is_only_a_parameter() -> None:
    made = site(lambda _: {"status": "ready", "workers": []})
    made.bind("GET /:name")
    assert made.ask("GET /healthz").json == {"status": "ok"}
    made.bind("GET /healthz")
    assert made.ask("GET /healthz").json == "route"
    assert made.ask("POST /readyz").status == 405


def test_a_project_is_ready_until_a_worker_fails(tmp_path: Path) -> None:
    ports = free_ports("http")
    toml = f'[workers.http.config]\nport = {ports["http"]}\n[workers.shop]\nrun = "shop.py"\n'
    shop = 'worker.register_function("shop::f", print)\n'

    def status() -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{ports['http']}/readyz") as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    with project(tmp_path, toml, {"shop": shop}) as running:
        assert status() == (200, {"status": "ready", "workers": []})
        (tmp_path / "shop.py").write_text("a mistake\n")
        running.call("engine::workers::stop", {"name": "shop"})
        assert status() == (200, {"status": "ready", "workers": []})
        running.call("engine::workers::start", {"name": "shop"})
        code, body = status()
        assert (code, body["status"], [row["name"] for row in body["workers"]]) == (503, "degraded", ["shop"])
