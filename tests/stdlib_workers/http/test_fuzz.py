"""The served OpenAPI document against the server that serves it: whatever is sent, nothing is a server's error."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode as Mode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.handler_examples import EXAMPLES as ON_HANDLERS
from tests.support.handler_examples import copied, running
from tests.support.live_project import ROOT, Project
from tests.support.web_project import Web, web

EXAMPLES = 30
CHECKS = [not_a_server_error, response_schema_conformance]
# Refusals that say nothing of what was sent: it was too much.
TOO_LARGE = (413, 414, 431)


def rejects_what_the_document_forbids(context: Any, response: Any, case: schemathesis.Case) -> None:
    if response.status_code not in TOO_LARGE:
        negative_data_rejection(context, response, case)


# What the document says of functions that get arguments is the whole truth.
STRICT_CHECKS = [*CHECKS, content_type_conformance, rejects_what_the_document_forbids, status_code_conformance]
# A request to it ends with its page.
ENDLESS = "/events"
BOUNDED = settings(
    max_examples=EXAMPLES,
    database=None,
    derandomize=True,  # the same requests in every run: a failure can be repeated
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A copy of an example on a port of its own."""
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(ROOT / "examples" / request.param, folder, dirs_exist_ok=True)
    toml = (folder / "iii.toml").read_text()
    table = "[workers.http.config]" if "[workers.http.config]" in toml else "[workers.http]\n[workers.http.config]"
    toml = toml.replace(table.splitlines()[0], f"{table}\nport = 0\ndefault_timeout = '5s'")
    made = Project(folder, '[engine]\nlisten = "127.0.0.1:0"\n' + toml, {})
    made.start()
    try:
        yield Web(made)
    finally:
        made.stop()


@pytest.mark.parametrize(
    ("example", "mode"),
    # The forms of `web` take anything: nothing is against their schemas.
    [("todo", Mode.POSITIVE), ("todo", Mode.NEGATIVE), ("web", Mode.POSITIVE)],
    indirect=["example"],
)
def test_no_request_is_a_servers_error(example: Web, mode: Mode) -> None:
    send_to_each_operation(example, mode, CHECKS)


def send_to_each_operation(site: Web, mode: Mode, checks: list[Any]) -> None:
    operations: list[Any] = []
    while not operations:  # the http worker may not have heard of the routes yet; the test's timeout bounds it
        document = schemathesis.openapi.from_url(f"http://127.0.0.1:{site.port}/openapi.json")
        operations = [found.ok() for found in document.exclude(path=ENDLESS).get_all_operations()]
    if mode is Mode.NEGATIVE:
        operations = [operation for operation in operations if can_be_wrong(operation.definition.raw)]
    for operation in operations:

        @BOUNDED
        @given(operation.as_strategy(generation_mode=mode))
        def send(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=checks)

        send()


def can_be_wrong(operation: dict[str, Any]) -> bool:
    """Return whether the document refuses any request: a path of texts, or nothing at all, is never wrong."""
    return "requestBody" in operation or any(
        parameter["in"] != "path" or parameter["schema"]["type"] != "string"
        for parameter in operation.get("parameters", ())
    )


TYPED = """
from dataclasses import dataclass

@dataclass
class Order:
    item: str
    quantity: int = 1

@worker.function("shop::order")
def order(id: int, order: Order, dry_run: bool = False, tags: list[int] | None = None, token: str = "") -> Order:
    if id % 7 == 0:
        raise InvocationError("not_found", "no such order", details={"http_status": 404})
    return order

@worker.function("shop::note")
def note(text: str, times: int = 1) -> dict[str, int] | None:
    return {text: times} if times % 2 else None

@worker.function("shop::upload")
def upload(title: str, count: int = 0) -> dict[str, int]:
    return {title: count}

def bind(name, path, method, status=None, **arguments):
    config = {"api_path": path, "http_method": method, "stream": False, "payload": "arguments", "arguments": arguments}
    config |= {} if status is None else {"status": status}
    worker.register_trigger({"type": "http", "function_id": f"shop::{name}", "config": config})

bind(
    "order",
    "/orders/{id}",
    "POST",
    201,
    id={"in": "path", "type": "integer", "required": True},
    order={"in": "body", "required": True},
    dry_run={"in": "query", "type": "boolean"},
    tags={"in": "query", "name": "tag", "type": "array", "items": "integer"},
    token={"in": "header", "name": "X-Token"},
)
text, times = {"in": "query_or_body", "required": True}, {"in": "query_or_body", "type": "integer"}
bind("note", "/notes", "PUT", text=text, times=times)
bind("note", "/notes/{text}", "GET", text={"in": "path"}, times={"in": "query", "type": "integer"})
bind("upload", "/forms", "POST", title={"in": "form", "required": True}, count={"in": "form", "type": "integer"})
"""


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with web(tmp_path_factory.mktemp("typed"), TYPED) as made:
        made.wait_for("/orders/{id}", "/notes", "/notes/{text}", "/forms")
        yield made


@pytest.mark.parametrize("mode", [Mode.POSITIVE, Mode.NEGATIVE])
def test_the_document_of_functions_with_arguments_is_the_truth(typed: Web, mode: Mode) -> None:
    send_to_each_operation(typed, mode, STRICT_CHECKS)


@pytest.fixture(scope="module")
def on_handlers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with running(copied(request.param, tmp_path_factory.mktemp("handlers")), "dev") as made:
        yield made


@pytest.mark.parametrize("mode", [Mode.POSITIVE, Mode.NEGATIVE])
@pytest.mark.parametrize("on_handlers", ON_HANDLERS, indirect=True)
def test_the_document_of_an_example_on_handlers_is_the_truth(on_handlers: Web, mode: Mode) -> None:
    send_to_each_operation(on_handlers, mode, STRICT_CHECKS)
