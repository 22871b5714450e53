"""The folder with a file for each configuration: what is taken from it, what is refused, what is written."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stdlib_workers.configuration.entries import MAX_BYTES
from stdlib_workers.configuration.files import Folder, configuration_from_text
from stdlib_workers.configuration.functions import Configurations
from stdlib_workers.storage import KEY_VALUE_SCHEMA, Change, SqliteKeyValue, Store
from stdlib_workers.values import decode
from tests.stdlib_workers.configuration.test_functions import ALL, PORT


class Files:
    """A folder and the configurations that it is one with."""

    def __init__(self, store: Store, path: Path) -> None:
        self.path = path
        self.folder = Folder(path)
        self.events: list[str] = []
        key_values = SqliteKeyValue(store)
        key_values.watch(self._take)
        self.configurations = Configurations(key_values, os.environ.get, "1", bindings=[ALL], directory=self.folder)

    def _take(self, change: Change) -> None:
        self.events += [decode(entry.body)["payload"]["event_type"].partition(":")[2] for entry in change.journal]

    def call(self, name: str, /, **payload: Any) -> Any:
        return asyncio.run(getattr(self.configurations, name)(payload))

    def sync(self) -> None:
        asyncio.run(self.folder.sync(self.configurations))

    def value(self) -> Any:
        return self.call("get", id="web", raw=True)["value"]

    def write(self, text: str, name: str = "web.yaml") -> None:
        (self.path / name).write_text(text)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    store = Store(None, KEY_VALUE_SCHEMA)
    made = Files(store, tmp_path / "conf")
    made.call("register", id="web", name="Web", description="d", schema=PORT, initial_value={"port": 1})
    yield made
    store.close()


def test_a_file_is_written_for_every_configuration_and_taken_back_as_nothing_new(files: Files) -> None:
    text = "id: web\nname: Web\ndescription: d\nvalue:\n  port: 1\n"
    assert (files.path / "web.yaml").read_text() == text
    files.sync()
    assert files.events == ["registered"]
    files.call("set", id="web", value={"port": "${P:2}"})
    assert "port: ${P:2}" in (files.path / "web.yaml").read_text()
    files.sync()
    assert files.events == ["registered", "updated"]


def test_an_edit_is_taken_once_and_a_rewritten_file_is_no_event(files: Files) -> None:
    files.write("value: {port: 5}")
    files.sync()
    files.sync()
    assert files.value() == {"port": 5}
    assert files.call("schema", id="web")["name"] == "Web"
    files.write("value: {port: 5}  # said again")
    files.sync()
    assert files.events == ["registered", "updated"]


@pytest.mark.parametrize(
    "text",
    [
        "value: {port: x}",
        "value: [",
        "port: 5",
        "just text",
        "",
        "value: {port: 5}\nother: 1",
        "id: app\nvalue: {port: 5}",
        "name: 5\nvalue: {port: 5}",
        "value: {port: '${GONE_FROM_HERE}'}",
        "a: &a [1]\nvalue: *a",
        "value: 2026-01-01\nname: !!python/object:os.system x",
        "value: " + "[" * 2000,
        "value: " + "x" * MAX_BYTES,
        "\x00",
    ],
)
def test_a_broken_file_changes_nothing_and_is_told_once(
    files: Files, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files.write(text)
    files.sync()
    files.sync()
    assert files.value() == {"port": 1}
    assert files.events == ["registered"]
    told = [line for line in capsys.readouterr().err.splitlines() if "web.yaml" in line]
    assert len(told) == 1
    assert "nothing has changed" in told[0]
    files.write("value: {port: 6}")
    files.sync()
    assert files.value() == {"port": 6}


def test_new_files_register_and_files_that_go_delete(files: Files) -> None:
    files.write("value: [1]", "new.yaml")
    files.write("value: 1", "No Id.yaml")
    files.write("value: 1", "other.json")
    files.sync()
    assert files.call("get", id="new") == {"id": "new", "value": [1]}
    assert [row["id"] for row in files.call("list")["configurations"]] == ["new", "web"]
    (files.path / "new.yaml").unlink()
    (files.path / "web.yaml").unlink()
    files.sync()
    assert files.call("list") == {"configurations": []}
    assert files.events == ["registered", "registered", "deleted", "deleted"]


def test_a_file_that_cannot_be_written_refuses_the_value(files: Files) -> None:
    (files.path / "web.yaml").unlink()
    (files.path / "web.yaml").mkdir()
    with pytest.raises(Exception, match="its file cannot be written"):
        files.call("set", id="web", value={"port": 2})
    assert files.value() == {"port": 1}
    assert files.events == ["registered"]


def test_what_a_file_leaves_out_stays(files: Files) -> None:
    known = asyncio.run(files.configurations.every())[0]
    told = configuration_from_text("web", b"value: 1", known, "digest")
    assert (told.name, told.description, told.value, told.file) == ("Web", "d", 1, "digest")
