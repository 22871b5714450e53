"""`[[engine.listeners]]` of iii.toml: read into specs, with every mistake pointed at."""

from __future__ import annotations

from pathlib import Path

import pytest

from iii.engine.config.project import load_project
from iii.engine.config.spec import ListenerSpec
from iii.engine.security.rbac import Filter, Rules
from iii.errors import ProjectError


def listeners(folder: Path, text: str) -> tuple[ListenerSpec, ...]:
    file = folder / "iii.toml"
    file.write_text(text)
    return load_project(file, environ={"APP": "https://app.example"}).engine.listeners


def test_a_listener_is_read_with_its_rules(tmp_path: Path) -> None:
    text = """
[[engine.listeners]]
port = 49135
origins = ["https://app.example"]
middleware_function_id = "gate::mw"

[engine.listeners.rbac]
auth_function_id = "gate::auth"
on_trigger_registration_function_id = "gate::trigger"
expose_functions = [
  'match("api::*")',
  { match = "shop::*", namespace = "shop" },
  { metadata = { public = true, owner = 'match("team-*")' } },
]

[[engine.listeners]]
port = 0
host = "0.0.0.0"
"""
    first, second = listeners(tmp_path, text)
    assert first == ListenerSpec(
        "127.0.0.1:49135",
        3,
        ("https://app.example",),
        "gate::mw",
        Rules(
            auth_function_id="gate::auth",
            on_trigger_registration_function_id="gate::trigger",
            expose_functions=(
                Filter('match("api::*")'),
                Filter("shop::*", {}, "shop"),
                Filter(None, {"public": True, "owner": 'match("team-*")'}),
            ),
        ),
    )
    assert (second.address, second.rules, second.middleware_function_id) == ("0.0.0.0:0", None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[engine]\nlisteners = 3", "listeners are tables"),
        ("[engine]\nlisteners = [3]", "must be a table"),
        ("[[engine.listeners]]\nhost = 'x'", "port must be an integer"),
        ("[[engine.listeners]]\nport = 70000", "port must be an integer"),
        ("[[engine.listeners]]\nport = true", "port must be an integer"),
        ("[[engine.listeners]]\nport = 1\nhots = 'x'", "unknown key `hots`"),
        ("[[engine.listeners]]\nport = 1\nhost = 7", "host must be a string"),
        ("[[engine.listeners]]\nport = 1\norigins = 'x'", "origins must be a list of strings"),
        ("[[engine.listeners]]\nport = 1\nrbac = 1", "rbac must be a table"),
        ("[[engine.listeners]]\nport = 1\nrbac = { auth = 'x' }", "unknown key `auth`"),
        ("[[engine.listeners]]\nport = 1\nrbac = { expose_functions = 'x' }", "expose_functions must be a list"),
        ("[[engine.listeners]]\nport = 1\nrbac = { expose_functions = [{}] }", "an entry has either"),
    ],
)
def test_a_mistake_is_an_error_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ProjectError, match=message) as wrong:
        listeners(tmp_path, text)
    assert wrong.value.line > 0
