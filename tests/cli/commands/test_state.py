"""`iii state` as a real process against a fake engine."""

from __future__ import annotations

import json
from typing import Any

from tests.support.command import Iii
from tests.support.fake_engine import FakeEngine, Refused


def asked(engine: FakeEngine) -> list[Any]:
    """Return the payloads of all calls."""
    return [message["data"] for message in engine.received if message["type"] == "invokefunction"]


def test_get_prints_the_value_and_with_json_its_version(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["state::get_entry"] = lambda _: {"value": {"a": 1}, "version": 7}
    assert json.loads(iii("state", "get", "s", "k").stdout) == {"a": 1}
    assert json.loads(iii("state", "get", "s", "k", "--json").stdout) == {"value": {"a": 1}, "version": 7}
    assert asked(engine)[0] == {"scope": "s", "key": "k"}


def test_get_tells_a_stored_null_from_nothing_by_its_exit_code(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["state::get_entry"] = lambda _: {"value": None, "version": 1}
    stored = iii("state", "get", "s", "k")
    engine.functions["state::get_entry"] = lambda _: None
    missing = iii("state", "get", "s", "k")
    assert (stored.stdout, stored.returncode) == ("null\n", 0)
    assert (missing.stdout, missing.returncode) == ("", 1)


def test_set_reads_json_unless_told_otherwise(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["state::set"] = lambda payload: {"old_value": None, "new_value": payload["value"]}
    iii("state", "set", "s", "k", "[1]")
    iii("state", "set", "s", "k", "[1]", "--string")
    iii("state", "set", "s", "k", "plain text", "--if-version", "3")
    assert [payload["value"] for payload in asked(engine)] == [[1], "[1]", "plain text"]
    assert asked(engine)[-1]["if_version"] == 3


def test_a_conflict_is_told_and_fails(engine: FakeEngine, iii: Iii) -> None:
    def refuse(_: Any) -> Any:
        raise Refused("CONFLICT", "the value is another one by now")

    engine.functions["state::set"] = refuse
    done = iii("state", "set", "s", "k", "1", "--if-version", "3", "--json")
    assert done.returncode == 1
    assert json.loads(done.stderr)["error"]["code"] == "CONFLICT"


def test_list_shows_scopes_or_all_pages_of_one(engine: FakeEngine, iii: Iii) -> None:
    pages = {
        None: {"entries": [{"key": "a", "value": 1}], "next_cursor": "c"},
        "c": {"entries": [{"key": "b", "value": [2]}], "next_cursor": None},
    }
    engine.functions["state::list_groups"] = lambda _: {"groups": ["s", "t"]}
    engine.functions["state::list_entries"] = lambda payload: pages[payload["cursor"]]
    assert iii("state", "list").stdout.split() == ["SCOPE", "s", "t"]
    assert iii("state", "list", "s").stdout.split() == ["KEY", "VALUE", "a", "1", "b", "[2]"]
    lines = iii("state", "list", "s", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [{"key": "a", "value": 1}, {"key": "b", "value": [2]}]
