"""The screen, line by line."""

from __future__ import annotations

import json
import os
import re

import pytest

from iii.engine.supervision.reports import (
    AllReady,
    AllStopped,
    Became,
    CallFailed,
    Exited,
    Failed,
    Finished,
    Holding,
    LeftBehind,
    LogLine,
    Notice,
    Reloaded,
    ReloadFailed,
    Repeated,
    Report,
    StartingSlowly,
)
from iii.engine.supervision.run import ExitReason, Frame, Run, SourceError
from iii.engine.terminal.screen import Screen, Style, duration
from iii.engine.terminal.writer import Writer

RUN = Run("web", 0, 2)
SYNTAX = SourceError("workers/web.py", 12, "SyntaxError: expected ':'", "def add(req)")
BROKEN = ExitReason("exited with code 1", exit_code=1, error=SYNTAX)
KILLED = ExitReason("killed by SIGKILL (out of memory?)", signal=9)
SHORT = Style(plain=False)
AT = 1_700_000_000.25
LOGGED = json.dumps(
    {
        "time": AT,
        "level": "warn",
        "message": "late\nby 3 s",
        "trace_id": "4bf9",
        "data": {"order": 7, "why": "no stock"},
    }
)
FRAMES = (Frame("web.py", 12, "send", "check(payload)"), Frame("web.py", 7, "check", "raise ValueError"))
NO_ADDRESS = SourceError(
    "web.py", 7, "ValueError: no such address", "raise ValueError", FRAMES, ("KeyError: 'x'  web.py:3",)
)
CALL_FAILED = CallFailed(RUN, "web::send", "cron", "cron trigger", NO_ADDRESS, "4bf9")


def shown(report: Report, style: Style = SHORT) -> list[str]:
    """The lines of a report with the time, which depends on the time zone, as `TIME`."""
    lines = Screen(style, ["web", "state"], lambda _: "2 functions").lines(report, AT)
    return [re.sub(r"\d\d:\d\d:\d\d\.\d{3}", "TIME", line) for line in lines]


@pytest.mark.parametrize(
    ("report", "lines"),
    [
        (LogLine(RUN, AT, "adding\x1b[2J"), ["TIME web   | adding"]),
        (Became(RUN, 0.112), ["  + web     2 functions                               112 ms"]),
        (AllReady(0.3), ["  ready in 0.3 s                                  Ctrl-C stops", ""]),
        (
            Reloaded(RUN, 0.084, ("workers/web.py",), 1),
            ["TIME web   ~ workers/web.py changed: reloaded in 84 ms (1 call finishing on the old code)"],
        ),
        (Reloaded(RUN, 0.084), ["TIME web   ~ ready again in 84 ms"]),
        (Exited(RUN, KILLED, 0.8, 2, 5), ["TIME web   ! killed by SIGKILL (out of memory?), restart 2 of 5 in 0.8 s"]),
        (
            Exited(RUN, BROKEN, 0.1, 1, 0),
            [
                "TIME web   ! exited with code 1, restart 1 in 100 ms",
                "                   | SyntaxError: expected ':'  workers/web.py:12",
                "                   |   12 | def add(req)",
            ],
        ),
        (
            Failed(RUN, ExitReason("no", stderr=("a", "b\x07")), 6),
            [
                "TIME web   x no",
                "                   | a",
                "                   | b\\x07",
                "                   | stopped (6 exits in a minute): save a file or run `iii worker restart web` to try again",  # noqa: E501
            ],
        ),
        (
            Finished(RUN, ExitReason("exited with code 0", exit_code=0)),
            ["TIME web   ! exited with code 0; not restarted"],
        ),
        (Holding(RUN, 2, 29.0), ["TIME web   ~ waiting for 2 calls in flight, at most 29.0 s more"]),
        (Holding(RUN, 0, 4.0), ["TIME web   ~ waiting for the process to exit, at most 4.0 s more"]),
        (LeftBehind(RUN, (7, 8), on_purpose=True), ["TIME web   ! keeps running (keep_children): 7, 8"]),
        (LeftBehind(RUN, (7,), on_purpose=False), ["TIME web   ! cannot be killed: 7"]),
        (LogLine(RUN, AT, LOGGED), ["TIME web   | WARN late", '                   | by 3 s  order=7  why="no stock"']),
        (
            LogLine(RUN, AT, "mail::send failed: ValueError", level="error", details=("void call of web",)),
            ["TIME web   x ERROR mail::send failed: ValueError", "                   | void call of web"],
        ),
        (StartingSlowly(2.0, ("queue", "slow")), ["  . still starting after 2.0 s: queue, slow"]),
        (
            AllReady(10.0, ("queue", "a-worker-with-a-long-name")),
            ["  ready in 10.0 s, but not queue, a-worker-with-a-long-name  Ctrl-C stops", ""],
        ),
        (
            CALL_FAILED,
            [
                "TIME web   x web::send failed: ValueError: no such address  web.py:7",
                "                   |   12 | check(payload)  web.py, in send",
                "                   |    7 | raise ValueError",
                "                   | caused by KeyError: 'x'  web.py:3",
                "                   | cron trigger; trace 4bf9",
            ],
        ),
        (
            Repeated(CALL_FAILED, 41, 10.0),
            ["TIME web   x web::send failed: ValueError: no such address  web.py:7  (41 times more in 10.0 s)"],
        ),
        (
            Repeated(Notice("slow", "web"), 3, 10.0, is_others=True),
            ["TIME web   ! slow  (3 others like it more in 10.0 s)"],
        ),
        (AllStopped(0.2, 2), ["  stopped 2 workers in 0.2 s"]),
        (Notice("text", details=("more",)), ["TIME iii   ! text", "                   | more"]),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else "",
)
def test_a_report_is_shown_as_the_screen_promises(report: Report, lines: list[str]) -> None:
    assert shown(report) == lines


def test_a_failed_reload_shows_the_line_and_what_serves_meanwhile() -> None:
    head, source, still = shown(ReloadFailed(RUN, BROKEN, AT))
    assert head == "TIME web   x SyntaxError: expected ':'           workers/web.py:12"
    assert source == "                   |   12 | def add(req)"
    assert re.search(r"\| still serving the version from \d\d:\d\d:\d\d$", still)


def test_those_that_did_not_start_are_named() -> None:
    assert "but not web" in shown(AllReady(0.3, ("web",)))[0]


def test_an_instance_is_shown_by_its_number() -> None:
    assert shown(LogLine(Run("web", 1, 1), AT, "x")) == ["TIME web[1] | x"]


def test_colors_belong_to_the_name_and_to_what_is_wrong() -> None:
    (line,) = Screen(Style(color=True, plain=False), ["web"], str).lines(Exited(RUN, KILLED, 0.8, 2, 5), AT)
    assert "\x1b[33mkilled by SIGKILL" in line
    assert "\x1b[" not in shown(Exited(RUN, KILLED, 0.8, 2, 5))[0]


def test_piped_output_has_full_times() -> None:
    (line,) = Screen(Style(), ["web"], str).lines(LogLine(RUN, AT, "x"), AT)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.250[+-]\d\d:\d\d web \| x$", line)


def test_json_is_one_object_a_line() -> None:
    screen = Screen(Style(json=True), ["web"], str)
    (line,) = screen.lines(ReloadFailed(RUN, BROKEN, AT), AT)
    value = json.loads(line)
    assert (value["kind"], value["worker"], value["generation"]) == ("ReloadFailed", "web", 2)
    assert value["reason"]["error"]["line"] == 12


def test_what_stands_apart_moves_together_in_a_narrow_terminal() -> None:
    screen = Screen(SHORT, ["web", "state"], lambda _: "2 functions, 1 route", lambda: 40)
    assert screen.lines(Became(RUN, 1.5), AT) == ["  + web     2 functions, 1 route   1.5 s"]
    assert (
        screen.lines(AllReady(1.5, ("a-long-name", "another")), AT)[0]
        == "  ready in 1.5 s, but not a-long-name, another"
    )
    assert screen.banner("iii 0.1.0  hello", "Python 3.12", [("sdk", "ws://127.0.0.1:49134"), ("console", "b")]) == [
        "  iii 0.1.0  hello           Python 3.12",
        "  sdk      ws://127.0.0.1:49134",
        "  console  b",
        "",
    ]
    narrow = Screen(SHORT, ["web", "state"], lambda _: "2 functions, 1 route", lambda: 30)
    assert narrow.lines(Became(RUN, 1.5), AT) == ["  + web                  1.5 s"]


def test_the_banner_has_two_facts_a_line() -> None:
    banner = Screen(SHORT, [], str).banner(
        "iii 0.1.0  hello", "Python 3.12", [("sdk", "ws://a"), ("console", "b"), ("state", "c")]
    )
    assert banner == [
        "  iii 0.1.0  hello                                  Python 3.12",
        "  sdk      ws://a    console  b",
        "  state    c",
        "",
    ]


def test_durations_are_read_at_a_glance() -> None:
    assert [duration(seconds) for seconds in (0.0843, 0.84, 59.96, 600)] == ["84 ms", "0.8 s", "60.0 s", "10 min"]


def test_the_writer_writes_in_order_and_flushes_at_its_close() -> None:
    reader, writer_end = os.pipe()
    writer = Writer(writer_end)
    writer.write(["one", "two"])
    writer.write(["\ud800"])
    writer.close()
    os.close(writer_end)
    with open(reader, "rb") as file:
        assert file.read() == b"one\ntwo\n\\ud800\n"


def test_the_writer_survives_a_closed_terminal() -> None:
    reader, writer_end = os.pipe()
    os.close(reader)
    writer = Writer(writer_end)
    for _ in range(10):
        writer.write(["x"])
    writer.close()
    os.close(writer_end)
    assert not writer._thread.is_alive()


def test_a_stopped_terminal_costs_lines_not_time() -> None:
    reader, writer_end = os.pipe()
    writer = Writer(writer_end, limit=2)
    line = "x" * 200_000  # more than the pipe holds: the thread is stuck in the first one
    for _ in range(20):
        writer.write([line])
    assert writer.dropped > 0
    with open(reader, "rb") as file:
        while b"not shown" not in file.readline():
            pass
    os.close(writer_end)
    writer.close()


HOSTILE = "a\x1b]0;title\x07\x1b[2J\u202eb\nc"


def test_nothing_in_a_report_reaches_the_terminal_raw() -> None:
    error = SourceError(HOSTILE, 7, HOSTILE, HOSTILE, (Frame(HOSTILE, 7, HOSTILE, HOSTILE),) * 3, (HOSTILE,))
    run = Run(HOSTILE, 0, 1)
    reason = ExitReason(HOSTILE, error=error)
    texts = [
        *(Exited(run, reason, 0.1, 1, 5), Failed(run, reason), ReloadFailed(run, reason), Finished(run, reason)),
        *(Failed(run, ExitReason(HOSTILE, stderr=(HOSTILE,))), Reloaded(run, 0.1, (HOSTILE,)), Became(run, 0.1)),
        *(Notice(HOSTILE, HOSTILE, details=(HOSTILE,)), AllReady(1.0, (HOSTILE,)), StartingSlowly(1.0, (HOSTILE,))),
        CallFailed(run, HOSTILE, HOSTILE, HOSTILE, error, HOSTILE),
        LogLine(Run("web", 0, 1), AT, HOSTILE, details=(HOSTILE,)),
    ]
    screen = Screen(Style(), ["web"], lambda _: HOSTILE)
    for line in [line for text in texts for line in screen.lines(text, AT)] + screen.banner(
        HOSTILE, "", [("", HOSTILE)]
    ):
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202e]", line), line


def test_a_very_deep_traceback_shows_its_inner_lines() -> None:
    frames = tuple(Frame("a.py", number, "f", "f()") for number in range(1, 31))
    error = SourceError("a.py", 30, "RecursionError", "f()", frames)
    lines = shown(Failed(RUN, ExitReason("no", error=error)))
    assert lines[1].endswith("| ... 22 lines of the project more")
    assert len(lines) == 1 + 1 + 7 + 1 + 1


def test_a_repeated_report_says_in_json_which_one_it_repeats() -> None:
    (line,) = shown(Repeated(CALL_FAILED, 41, 10.0), Style(json=True))
    report = json.loads(line)
    assert (report["kind"], report["count"]) == ("Repeated", 41)
    inside = report["report"]
    assert (inside["kind"], inside["cause"], inside["worker"], inside["error"]["line"]) == (
        "CallFailed",
        "cron",
        "web",
        7,
    )
