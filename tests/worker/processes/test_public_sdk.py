"""The public SDK's examples, in `examples/public_sdk`: the same files under our SDK, twice, and the official one."""

from __future__ import annotations

from time import monotonic

import pytest

from tests.support import three_ways
from tests.support.live_project import BOUND, ROOT, Project

SCRIPTS = sorted((ROOT / "examples" / "public_sdk").glob("*.py"))
# What each script registers last.
LAST = {"functions::add", "triggers::bound", "conditions::breaks", "metadata::fire", "channels::describe"}
BINDINGS = 2 + 6 + 2  # without the one that its provider refuses


def is_ready(made: Project) -> bool:
    """Whether every script has said all it has to say."""
    functions = made.call("engine::functions::list")["functions"]
    bindings = made.call("engine::registered-triggers::list")["registered_triggers"]
    bound = [row for row in bindings if not row["trigger_type"].startswith("engine::")]
    return {row["function_id"] for row in functions} >= LAST and len(bound) >= BINDINGS


@pytest.fixture(scope="module", params=three_ways.WAYS)
def running(request, tmp_path_factory):
    with three_ways.running(request.param, tmp_path_factory.mktemp("public"), SCRIPTS, is_ready) as made:
        yield made


def until(running: Project, function_id: str, data: object, expected: object) -> None:
    """Call until the answer is as expected: what came before it is handled beside."""
    deadline = monotonic() + BOUND
    while (got := running.call(function_id, data)) != expected:
        assert monotonic() < deadline, got


def test_handlers_of_both_kinds_answer_and_call(running):
    assert running.call("functions::add", {"a": 2, "b": 3}) == {"sum": 5}
    assert running.call("functions::add_all", [1, 2, 3]) == 6
    assert running.call("functions::double", {"n": 4}) == {"sum": 8}


def test_errors_have_a_code_and_the_exceptions_text(running):
    request = {"function_id": "functions::fail", "payload": {"why": "no reason"}}
    assert running.call("functions::attempt", request) == {"code": "invocation_failed", "message": "no reason"}
    assert running.call("functions::attempt", {"function_id": "functions::nowhere"})["code"] == "function_not_found"


def test_formats_description_and_metadata_are_known_and_enforced(running):
    known = running.call("engine::functions::info", {"function_id": "functions::add"})
    assert (known["description"], known["metadata"], known["worker_name"]) == (
        "Add two numbers",
        {"tier": "gold"},
        "functions",
    )
    assert known["request_schema"]["required"] == ["a", "b"]
    request = {"function_id": "functions::add", "payload": {"a": "two", "b": 3}}
    assert running.call("functions::attempt", request)["code"] == "invalid_payload"


def test_a_call_that_nobody_waits_for_arrives(running):
    assert running.call("functions::send_note", "remember") is None
    until(running, "functions::read_notes", {}, ["remember"])


def test_a_function_can_be_taken_back(running):
    assert running.call("functions::temporary", {}) == "still here"
    running.call("functions::drop", {})
    request = {"function_id": "functions::temporary", "payload": {}}
    gone = {"code": "function_not_found", "message": "Function functions::temporary not found in namespace default"}
    until(running, "functions::attempt", request, gone)


def test_triggers_wait_for_their_type_fire_in_order_and_can_be_refused(running):
    until(running, "triggers::bound", {}, 2)
    assert running.call("triggers::ring", {"house": 1, "by": "Ada"}) == ["come in, Ada", "woof"]
    assert running.call("triggers::ring", {"house": 2, "by": "Ada"}) == []


def test_a_trigger_can_be_taken_back(running):
    running.call("triggers::move_out", {})
    until(running, "triggers::ring", {"house": 1, "by": "Ada"}, ["woof"])


@pytest.mark.parametrize("amount", [1, 1000])
def test_only_a_plain_false_and_a_broken_condition_stop_an_event(running, amount):
    large = ["is_large"] if amount > 100 else []
    assert running.call("conditions::sell", {"amount": amount}) == [*large, "says_nothing", "says_zero", "always"]


@pytest.mark.parametrize("function_id", ["metadata::second", "metadata::keyword"])
@pytest.mark.parametrize("metadata", [{"team": "a"}, [1, 2], "text", None])
def test_metadata_travels_beside_the_payload_as_it_is(running, function_id, metadata):
    request = {"function_id": function_id, **({} if metadata is None else {"metadata": metadata})}
    assert running.call("metadata::relay", request) == [{"n": 1}, metadata]


def test_a_handler_without_metadata_is_not_given_any(running):
    assert running.call("metadata::relay", {"function_id": "metadata::without", "metadata": {"a": 1}}) == {"n": 1}


def test_the_metadata_of_a_binding_comes_with_every_event(running):
    until(running, "metadata::fire", {"n": 1}, [[{"n": 1}, {"team": "a"}], [{"n": 1}, None]])


def test_streams_go_both_ways(running):
    assert running.call("channels::upload", {"text": "abc", "times": 50_000}) == 150_000
    expected = {"body": "part 0\npart 1\npart 2\n", "progress": [0, 1, 2]}
    assert running.call("channels::download", {"steps": 3}) == expected


def test_references_can_be_told_from_other_values(running):
    assert running.call("channels::describe", {}) == [[["files[0]", "read"]], True, False]
