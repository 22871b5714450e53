"""The examples on handlers: their own tests, what they say to wrong requests, and the agent in a real browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iii import InvocationError
from iii.testing import project
from tests.support import official
from tests.support.browser import open_page
from tests.support.handler_examples import EXAMPLES, copied, running
from tests.support.live_project import ROOT
from tests.support.web_project import Web


@pytest.mark.parametrize("name", [*EXAMPLES, "flows"])
def test_the_tests_of_an_example_pass_for_who_has_only_the_example(name: str, tmp_path: Path) -> None:
    place = copied(name, tmp_path)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(place),
        "-c",
        os.devnull,
    ]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


ACCOUNTS = '''
from dataclasses import dataclass
from typing import Annotated, Literal

from iii import Cookie, Header, register_worker

worker = register_worker()


@dataclass
class Account:
    """An account."""

    name: str
    level: Literal["low", "high"]
    password: str


@worker.post("/accounts/{number}")
def save(
    number: int,
    account: Account,
    days: int = 1,
    api_key: str = "",
    authorization: Annotated[str, Header()] = "",
    x_level: Annotated[int, Header()] = 0,
    session: Annotated[str, Cookie()] = "",
    size: Annotated[int, Cookie()] = 0,
) -> str:
    """Save an account."""
    return account.name


@worker.get("/total")
def total() -> int:
    """Count the accounts, wrongly."""
    return "many"  # type: ignore[return-value]
'''
SECRET = "geheim-4711"
# What every request carries, and no answer.
HEADERS = {"authorization": f"Bearer {SECRET}", "cookie": f"session={SECRET}", "content-type": "application/json"}
RIGHT = {"name": "ada", "level": "low", "password": SECRET}


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("accounts")
    (folder / "accounts.py").write_text(ACCOUNTS)
    tables = '[workers.accounts]\nrun = "accounts.py"\n[workers.http.config]\nport = 0\n'
    (folder / "iii.toml").write_text('[engine]\nlisten = "off"\n' + tables)
    with running(folder, "dev") as made:
        made.wait_for("/accounts/{number}", "/total")
        yield made


@pytest.mark.parametrize(
    ("path", "changes", "headers", "place", "expected"),
    [
        ("/accounts/1", {"level": "middle"}, {}, "body.level", '"low" or "high"'),
        ("/accounts/1", {"name": 7}, {}, "body.name", "a string"),
        ("/accounts/1", {"password": [SECRET]}, {}, "body.password", "a string"),
        ("/accounts/1", {"name": ...}, {}, "body.name", "a string"),
        ("/accounts/1", {"level": ...}, {}, "body.level", '"low" or "high"'),
        ("/accounts/one", {}, {}, "path.number", "an integer"),
        ("/accounts/1?days=two", {}, {}, "query.days", "an integer"),
        ("/accounts/1", {}, {"x-level": SECRET}, "header.x-level", "an integer"),
        ("/accounts/1", {}, {"cookie": f"session={SECRET}; size={SECRET}"}, "cookie.size", "an integer"),
    ],
)
def test_a_wrong_request_hears_where_it_is_wrong_and_no_secret_of_its_own(
    accounts: Web, path: str, changes: dict[str, Any], headers: dict[str, str], place: str, expected: str
) -> None:
    body = {key: value for key, value in {**RIGHT, **changes}.items() if value is not ...}
    path += ("&" if "?" in path else "?") + f"api_key={SECRET}"
    answer = accounts.ask("POST", path, body, {**HEADERS, **headers})
    assert answer.status == 422, answer.body
    error = answer.json["error"]
    (mistake,) = error["details"]["mistakes"]
    assert (mistake["path"], mistake["expected"]) == (place, expected)
    assert f"{place}: expected {expected}" in error["message"]
    assert SECRET.encode() not in answer.body


def test_a_body_that_cannot_be_read_is_a_400_without_its_text(accounts: Web) -> None:
    answer = accounts.ask("POST", "/accounts/1", f'{{"password": "{SECRET}'.encode(), HEADERS)
    assert answer.status == 400
    assert "JSON" in answer.json["error"]["message"]
    assert SECRET.encode() not in answer.body


def test_no_wrong_request_tells_the_terminal_a_secret(accounts: Web) -> None:
    accounts.ask("POST", "/accounts/last", RIGHT, HEADERS)
    accounts.project.wait("POST /accounts/last 422")
    assert SECRET not in "".join(accounts.project.lines)


def test_a_wrong_result_names_its_function_to_the_developer(accounts: Web) -> None:
    answer = accounts.ask("GET", "/total")
    assert answer.status == 500
    accounts.project.wait("accounts::total failed: invalid_result: returned what its response format does not admit")


def test_a_wrong_result_names_its_function_in_a_test(tmp_path: Path) -> None:
    (tmp_path / "accounts.py").write_text(ACCOUNTS)
    tables = '[workers.accounts]\nrun = "accounts.py"\n[workers.http]\n'
    (tmp_path / "iii.toml").write_text(tables)
    with project(tmp_path) as iii:
        with pytest.raises(InvocationError, match="accounts::total returned what its response format does not admit"):
            iii.call("accounts::total")
        assert iii.http.get("/total").status_code == 500


CLIENTS = {
    "shortener": """
from client.api.shortener import shortener_all_links, shortener_forget, shortener_shorten, shortener_show
from client.models import ShortenerShortenNewLink

made = shortener_shorten.sync(client=client, body=ShortenerShortenNewLink(url="https://example.com", name="way"))
assert (made.name, made.url, made.visits) == ("way", "https://example.com", 0)
assert shortener_show.sync(client=client, name="way").to_dict() == made.to_dict()
assert [link.name for link in shortener_all_links.sync(client=client, limit=1)] == ["way"]
assert shortener_forget.sync_detailed(client=client, name="way").status_code == 204
assert shortener_show.sync(client=client, name="way").error.code == "not_found"
""",
    "orders": """
from client.api.orders import orders_place, orders_show
from client.models import OrdersPlaceNewOrder

placed = orders_place.sync(client=client, body=OrdersPlaceNewOrder.from_dict({"customer": "ada", "item": "tea"}))
assert (placed.cents, orders_show.sync(client=client, id=placed.id).customer) == (350, "ada")
refused = orders_place.sync(client=client, body=OrdersPlaceNewOrder.from_dict({"customer": "", "item": "tea"}))
assert refused.error.message == "an order has a customer and a quantity of 1 to 100", refused
""",
    "agent": """
from client.api.agent import agent_ask, agent_turns

answer = agent_ask.sync_detailed(client=client, chat="one", question="Who are you?")
assert answer.content.endswith(b'data: {"done":true}\\n\\n'), answer.content
(turn,) = agent_turns.sync(client=client, chat="one")
assert turn.question == "Who are you?"
""",
}


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_generated_client_calls_an_example(name: str, tmp_path: Path) -> None:
    python = official.client_generator()
    with running(copied(name, tmp_path)) as site:
        site.wait_for({"shortener": "/{name}", "orders": "/payments/redrive", "agent": "/chats/{chat}"}[name])
        document = site.ask("GET", "/openapi.json").json
        (tmp_path / "api.json").write_text(json.dumps(document))
        generate = [python, "-m", "openapi_python_client", "generate", "--path", "api.json", "--output-path", "client"]
        subprocess.run([*generate, "--meta", "none"], cwd=tmp_path, check=True, capture_output=True)
        begin = f"from client import Client\nclient = Client('http://127.0.0.1:{site.port}')\n"
        command = [python, "-c", begin + CLIENTS[name]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_browser_shows_the_agents_answer_and_what_its_typescript_tool_said(tmp_path: Path) -> None:
    packages = json.loads((ROOT / "examples" / "agent" / "package.json").read_text())
    place = copied("agent", tmp_path, node_modules=official.typescript_with(packages))
    with running(place) as site:
        site.wait_for("/chats/{chat}/ask")
        while site.project.call("engine::functions::list", {"prefix": "tools::"})["functions"] == []:
            pass  # the test's timeout bounds it
        with open_page(f"http://127.0.0.1:{site.port}/", tmp_path / "profile") as page:
            page.wait("document.querySelectorAll('button').length", 1)
            page.value("document.querySelector('button').click()")
            page.wait("document.querySelector('p').textContent", "It is sunny in Ulm, at 13 degrees. ")
            said = page.value("document.querySelector('li').textContent")
        assert said == 'tools::weather: {"sky":"sunny","degrees":13}'
        asked = site.project.said("/ask 200")
        assert len(asked) == 1, asked  # the page has not asked again after the end
