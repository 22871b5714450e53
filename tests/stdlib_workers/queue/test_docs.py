"""The pages about queue and cron run as they stand, and their tables agree with the code."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.commands import cron
from cli.commands.queue import command
from stdlib_workers.cron.jobs import payload_from
from stdlib_workers.cron.schedules import FIELDS
from stdlib_workers.queue import functions, options
from stdlib_workers.queue.limits import KEYS
from stdlib_workers.queue.model import QueueConfig
from tests.support.live_project import ROOT, project

LISTEN_OFF = '[engine]\nlisten = "off"\n'


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def blocks(name: str, language: str) -> str:
    """Return the blocks of a page in one language, joined."""
    return "\n\n".join(re.findall(rf"^```{language}\n(.*?)^```", page(name), re.DOTALL | re.MULTILINE))


def rows_of(name: str, section: str) -> list[str]:
    """Return the names in the first column of a section's table."""
    [body] = re.findall(rf"## {section}\n(.*?)(?:\n## |\Z)", page(name), re.DOTALL)
    cells = re.findall(r"^\| (`[^|]*) \|", body, re.MULTILINE)
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]


def test_the_page_about_queues_runs(tmp_path: Path) -> None:
    (tmp_path / "mailer.py").write_text(blocks("queue", "python"))
    with project(tmp_path, LISTEN_OFF + blocks("queue", "toml"), {}) as running:
        first = running.call("shop::order", {"id": "o-1", "to": "ada", "fails": 1})
        assert running.call("shop::order", {"id": "o-1", "to": "ada"}) == first
        running.wait("sending to ada attempt 1")
        running.wait("sending to ada attempt 2")
        running.call("iii::durable::publish", {"topic": "orders", "data": {"to": "bob"}})
        running.wait("sending to bob attempt 1")
        names = {row["name"] for row in running.call("iii::queue::list")["queues"]}
        assert names == {"default", "mail", "orders", "reports"}


def test_the_page_about_queues_has_every_key_option_and_code() -> None:
    defaults = {field.name: field.default for field in fields(QueueConfig) if field.name in options.KEYS}
    assert set(rows_of("queue", "Config of a queue")) == set(defaults) - set(KEYS)
    assert [row.split(" ")[0] for row in rows_of("queue", "Flow control") if " = " in row] == [*KEYS]
    for name, default in defaults.items():
        if name in KEYS:
            continue
        shown = "none" if default is None else f"`{json.dumps(default)}`"
        assert f"| `{name}` | {shown} |" in page("queue")
    assert set(rows_of("queue", "Options of an enqueue")) == {"queue", *functions.OPTIONS}
    codes = set(re.findall(r'code="(\w+)"', Path(functions.__file__).read_text(encoding="utf-8")))
    codes |= set(re.findall(r'InvocationError\("(\w+)"', Path(functions.__file__).read_text(encoding="utf-8")))
    told = set(rows_of("queue", "Errors"))
    assert codes - told <= {"deserialization_error", "invalid_payload", "function_id_not_set"}
    assert set(functions.CODES.values()) - told == {"list_topics_failed"}


def test_the_page_about_cron_runs(tmp_path: Path) -> None:
    (tmp_path / "reports.py").write_text(blocks("cron", "python"))
    with project(tmp_path, LISTEN_OFF + blocks("cron", "toml"), {}) as running:
        running.wait("report of", count=2)
        [job] = running.call("cron::list")["jobs"]
        assert job["job"] == "daily"
        running.call("cron::run", {"job": "daily"})


def test_the_page_about_cron_has_every_key_and_field() -> None:
    keys = rows_of("cron", "Config of a trigger")
    assert keys == ["expression", "timezone", "name", "catch_up", "overlap", "condition_function_id"]
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    payload = payload_from("id", "key", noon, noon, 0)
    assert [name for name in payload if f"`{name}`" not in page("cron")] == []


CRON_LINES = [line[2:] for line in blocks("cron", "console").splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize("line", [line for line in CRON_LINES if line.startswith("iii cron next ")])
def test_the_commands_of_the_page_about_cron_run(line: str) -> None:
    program, *arguments = shlex.split(line)
    assert program == "iii"
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) >= 2 or len(json.loads(done.stdout)["next"]) == 2


def test_the_page_about_cron_shows_every_command_and_each_field_of_a_schedule() -> None:
    assert {shlex.split(line)[2] for line in CRON_LINES} == set(cron.command.commands)
    schedule, *_ = [line for line in CRON_LINES if line.startswith("iii cron schedule ")]
    cron.schedule.make_context("schedule", shlex.split(schedule)[3:])
    assert set(FIELDS) == set(rows_of("cron", "Schedules made at run time")) - IN_METADATA


# What the row of `metadata` says is under `iii.schedule`, and names that explain other fields.
IN_METADATA = {"iii.schedule", "scheduled_time", "actual_time", "tick_id", "missed", "Europe/Berlin", "UTC"}


def test_the_commands_of_the_page_about_queues_exist() -> None:
    verbs = {shlex.split(line)[3] for line in blocks("queue", "console").splitlines()}
    assert verbs == {"list", "dead", "redrive", "discard"}
    assert verbs <= set(command.commands)
