"""`iii logs`: files merged by time, filtered, followed across rotations, and harmless to look at."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.client.errors import UsageError
from cli.observe.log_reader import Tail, Tails, level_of
from cli.observe.logs import start_of
from tests.support.command import Iii, environment

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def line(second: int, text: str, worker: str = "a", stream: str = "stderr") -> str:
    time = f"2026-01-31T12:00:{second:02d}.000+00:00"
    fields = {"time": time, "worker": worker, "instance": 0, "generation": 1, "stream": stream, "text": text}
    return json.dumps(fields) + "\n"


@pytest.fixture
def logs(folder: Path) -> Path:
    """Return the logs of a project with two workers, one of them rotated."""
    (folder / "iii.toml").write_text("")
    kept = folder / ".iii" / "logs"
    kept.mkdir(parents=True)
    (kept / "a.log.1").write_text(line(1, "first"))
    (kept / "a.log").write_text(line(3, "ERROR third"))
    (kept / "b.log").write_text(line(2, "second", "b") + "no line of ours\n" + line(4, "fourth", "b"))
    return kept


def texts(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [shown.partition(" | ")[2] for shown in done.stdout.splitlines()]


def test_all_logs_are_merged_by_time(logs: Path, iii: Iii) -> None:
    assert texts(iii("logs")) == ["first", "second", "ERROR third", "fourth"]
    assert texts(iii("logs", "b")) == ["second", "fourth"]


def test_level_and_time_narrow_what_is_shown(logs: Path, iii: Iii) -> None:
    assert texts(iii("logs", "--level", "warn")) == ["ERROR third"]
    assert texts(iii("logs", "--since", "2026-01-31T12:00:03+00:00")) == ["ERROR third", "fourth"]
    assert texts(iii("logs", "--since", "1s")) == []


def test_json_is_one_object_a_line_with_the_level(logs: Path, iii: Iii) -> None:
    rows = [json.loads(shown) for shown in iii("logs", "--json").stdout.splitlines()]
    assert [(row["worker"], row["text"], row["level"]) for row in rows[1:3]] == [
        ("b", "second", "info"),
        ("a", "ERROR third", "error"),
    ]


def test_a_name_without_log_is_an_error_that_names_the_others(logs: Path, iii: Iii) -> None:
    done = iii("logs", "c")
    assert done.returncode == 2
    assert done.stderr == "error: there is no log of a worker `c`\nthere are logs of: a, b\n"


def test_control_and_direction_characters_are_never_shown_raw(logs: Path, iii: Iii) -> None:
    (logs / "a.log").write_text(line(5, "gone\r\x1b]0;title\x07\x1b[2J\u202eevil\x00\x9b"))
    for words in (("logs",), ("logs", "--json")):
        shown = iii(*words).stdout
        assert "evil" in shown
        assert not {"\x1b", "\x07", "\u202e", "\x00", "\r", "\x9b"} & set(shown)


def test_a_reader_that_leaves_ends_it_without_a_word(logs: Path, folder: Path) -> None:
    (logs / "a.log").write_text("".join(line(5, "x" * 1000) for _ in range(1000)))
    command = [sys.executable, "-m", "cli.main", "logs"]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 141


def test_following_shows_what_comes_and_workers_that_come(logs: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "logs", "-f"]
    with subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        seen = [running.stdout.readline() for _ in range(4)]
        (logs / "c.log").write_text(line(6, "late", "c"))
        seen.append(running.stdout.readline())
        running.terminate()
    assert [shown.partition(" | ")[2] for shown in seen] == [
        "first\n",
        "second\n",
        "ERROR third\n",
        "fourth\n",
        "late\n",
    ]


def told(rows: Iterator[dict[str, object]]) -> list[object]:
    return [row["text"] for row in rows]


def test_a_tail_goes_on_across_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(line(1, "one"))
    tail = Tail(path)
    assert told(tail.rows()) == ["one"]
    with path.open("a") as file:
        file.write(line(2, "two"))
        path.rename(tmp_path / "a.log.1")
        path.write_text(line(4, "four"))
        file.write(line(3, "three"))
    assert told(tail.rows()) == ["two", "three", "four"]
    assert told(tail.rows()) == []
    tail.close()


def test_a_tail_whose_file_was_removed_goes_on_with_the_oldest(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(line(1, "one"))
    tail = Tail(path)
    assert told(tail.rows()) == ["one"]
    path.unlink()
    assert told(tail.rows()) == []
    path.write_text(line(2, "two"))
    assert told(tail.rows()) == ["two"]
    tail.close()


def test_a_line_is_told_once_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    whole = line(1, "one")
    path.write_text(whole[:20])
    tails = Tails(tmp_path)
    assert told(tails.rows()) == []
    path.write_text(whole)
    assert told(tails.rows()) == ["one"]
    tails.close()


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("plain", "info"),
        ("WARNING:root:careful", "warn"),
        ("2026-01-31 12:00:00,000 CRITICAL down", "error"),
        ("an error is mentioned", "info"),
        ("Traceback (most recent call last):", "error"),
        ("ValueError: bad", "error"),
        ("sqlite3.OperationalError: bad", "error"),
        ('{"level": "debug", "message": "ERROR"}', "debug"),
        ('{"level": 5}', "info"),
        ("{no json", "info"),
    ],
)
def test_a_line_says_how_grave_it_is(text: str, level: str) -> None:
    assert level_of(text, "stderr") == level


def test_what_the_engine_remarks_is_a_warning() -> None:
    assert level_of("truncated 7 bytes at exit", "engine") == "warn"


def test_since_is_a_span_or_a_time() -> None:
    assert start_of("90s", NOW) == "2026-01-31T11:58:30.000+00:00"
    assert start_of("1.5h", NOW) == "2026-01-31T10:30:00.000+00:00"
    assert start_of("2026-01-31T13:00+02:00", NOW) == "2026-01-31T11:00:00.000+00:00"
    assert start_of(None, NOW) == ""
    for wrong in ("soon", "5 m", "-5m", "9" * 400 + "d"):
        with pytest.raises(UsageError, match="that is no time"):
            start_of(wrong, NOW)
