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
from schemathesis.specs.openapi.checks import response_schema_conformance

from tests.support.live_project import ROOT, Project
from tests.support.web_project import Web

EXAMPLES = 30
CHECKS = [not_a_server_error, response_schema_conformance]
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
    operations: list[Any] = []
    while not operations:  # the http worker may not have heard of the routes yet; the test's timeout bounds it
        document = schemathesis.openapi.from_url(f"http://127.0.0.1:{example.port}/openapi.json")
        operations = [found.ok() for found in document.exclude(path=ENDLESS).get_all_operations()]
    for operation in operations:

        @BOUNDED
        @given(operation.as_strategy(generation_mode=mode))
        def send(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS)

        send()
