"""Log files: complete, rotated, and harmless when the disk is not."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

from iii.engine.supervision.reports import LogLine
from iii.engine.supervision.run import Run
from iii.engine.terminal.log_files import LogBook, LogFile


def line(text: str) -> LogLine:
    return LogLine(Run("web", 1, 3), 1_700_000_000.5, text)


def test_a_line_is_one_json_object_without_control_characters(tmp_path: Path) -> None:
    book = LogBook(tmp_path / "logs")
    book.write(line("bell\x07 \u202e"))
    book.close()
    raw = (tmp_path / "logs/web.log").read_bytes()
    assert raw.isascii()
    assert b"\x07" not in raw
    assert json.loads(raw) == {
        "time": "2023-11-14T22:13:20.500+00:00",
        "worker": "web",
        "instance": 1,
        "generation": 3,
        "stream": "stderr",
        "text": "bell\x07 \u202e",
    }


def test_nobody_else_may_read_them(tmp_path: Path) -> None:
    book = LogBook(tmp_path / "logs")
    book.write(line("x"))
    book.close()
    assert stat.S_IMODE((tmp_path / "logs").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "logs/web.log").stat().st_mode) == 0o600


def test_a_full_file_is_rotated_and_the_oldest_goes(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "a.log", limit=8, files=3)
    for number in range(8):
        file.append([f"{number}00"])
    file.close()
    texts = {path.name: path.read_text().split() for path in tmp_path.iterdir()}
    assert texts == {"a.log": ["600", "700"], "a.log.1": ["400", "500"], "a.log.2": ["200", "300"]}


def test_an_existing_file_is_continued(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("before\n")
    file = LogFile(tmp_path / "a.log")
    file.append(["after"])
    file.close()
    assert (tmp_path / "a.log").read_text() == "before\nafter\n"


def test_a_deleted_file_is_made_again(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "a.log")
    file.append(["one"])
    (tmp_path / "a.log").unlink()
    file.append(["two"])
    file.close()
    assert (tmp_path / "a.log").read_text() == "two\n"


def test_a_disk_that_refuses_costs_lines_that_are_counted(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    book = LogBook(tmp_path / "logs")
    book.write(line("one"))
    book.write(line("two"))
    assert book.dropped == 2


def test_lines_of_one_turn_of_the_loop_share_a_write(tmp_path: Path) -> None:
    later: list[Callable[[], None]] = []
    book = LogBook(tmp_path / "logs", lambda _, callback: later.append(callback) or True)
    for text in ("one", "two"):
        book.write(line(text))
    [flush] = later
    assert not (tmp_path / "logs/web.log").exists()
    flush()
    book.write(line("three"))
    book.close()
    texts = [json.loads(each)["text"] for each in (tmp_path / "logs/web.log").read_text().splitlines()]
    assert (texts, len(later)) == (["one", "two", "three"], 2)
