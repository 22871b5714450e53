"""The examples on handlers: their own tests, what they say to wrong requests, and the agent in a real browser."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iii import InvocationError
from iii.testing import project
from tests.support.handler_examples import EXAMPLES, copied, running
from tests.support.web_project import Web


@pytest.mark.parametrize("name", EXAMPLES)
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
