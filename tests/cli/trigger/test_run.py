"""`iii trigger` as a real process against a fake engine: what is sent, what is printed, how it exits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import Iii, environment
from tests.support.fake_engine import FakeEngine, Refused

LIGHT = {"click", "argparse", "asyncio", "typing", "dataclasses", "re", "json", "socket", "enum", "pathlib", "iii"}


def test_pairs_are_sent_as_numbers_and_the_result_stands_on_one_line(engine: FakeEngine, iii: Iii) -> None:
    done = iii("trigger", "math::add", "a=2", "b=3")
    assert (done.stdout, done.stderr, done.returncode) == ('{"c": 5}\n', "", 0)
    assert engine.calls[0]["data"] == {"a": 2, "b": 3}


@pytest.mark.parametrize("alias", ["call", "t"])
def test_the_other_names_of_trigger_do_the_same(engine: FakeEngine, iii: Iii, alias: str) -> None:
    assert iii(alias, "math::add", "a=2", "b=3").stdout == '{"c": 5}\n'


def test_an_unknown_function_is_answered_with_the_nearest(engine: FakeEngine, iii: Iii) -> None:
    done = iii("trigger", "math::ad", "a=2", "b=3")
    assert done.stderr == "error: function math::ad not found. Did you mean math::add?\n"
    assert (done.stdout, done.returncode) == ("", 1)


def test_the_engines_own_suggestions_win_over_a_search(engine: FakeEngine, iii: Iii) -> None:
    def missing(_: object) -> object:
        raise Refused("function_not_found", "Function x::y not found", details={"suggestions": ["x::z"]})

    engine.functions["x::y"] = missing
    assert iii("trigger", "x::y").stderr == "error: function x::y not found. Did you mean x::z?\n"


def test_a_refused_argument_is_named_with_the_place_of_the_function(engine: FakeEngine, iii: Iii) -> None:
    done = iii("trigger", "math::add", "a=two", "b=3")
    assert done.stderr == 'error: math::add: a must be a number, got "two"  (workers/math.py:4)\n'
    assert done.returncode == 1


def test_a_failed_handler_shows_message_code_and_traceback(engine: FakeEngine, iii: Iii) -> None:
    def boom(_: object) -> object:
        raise Refused("invocation_failed", "division by zero", stacktrace="Traceback:\n  line\x1b[31m 1\n")

    engine.functions["math::boom"] = boom
    done = iii("trigger", "math::boom")
    assert done.stderr == "error: math::boom: division by zero  (invocation_failed)\nTraceback:\n  line\\x1b[31m 1\n"
    assert done.returncode == 1


def test_the_last_words_of_a_dead_worker_are_shown(engine: FakeEngine, iii: Iii) -> None:
    def die(_: object) -> object:
        raise Refused("invocation_stopped", "Invocation stopped", details={"stderr": ["out of luck"]})

    engine.functions["math::die"] = die
    assert iii("trigger", "math::die").stderr.endswith("(invocation_stopped)\n  | out of luck\n")


def test_a_timeout_has_its_own_exit_code(engine: FakeEngine, iii: Iii) -> None:
    def slow(_: object) -> object:
        raise Refused("TIMEOUT", "no answer within 50 ms")

    engine.functions["math::slow"] = slow
    assert iii("trigger", "math::slow", "--timeout-ms", "50").returncode == 124
    assert engine.calls[0]["deadline_ms"] == 50


def test_every_option_reaches_the_message(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["x::y"] = lambda data: {"messageReceiptId": "r"}
    done = iii("t", "x::y", "--json", '{"a": 1, "b": 2}', "b=3", "--enqueue", "mail", "--metadata={}", "-n", "shop")
    sent = engine.calls[0]
    assert json.loads(done.stdout) == {"messageReceiptId": "r"}
    assert sent["data"] == {"a": 1, "b": 3}
    assert sent["action"] == {"type": "enqueue", "queue": "mail"}
    assert (sent["metadata"], sent["namespace"]) == ({}, "shop")


def test_an_action_of_a_worker_is_passed_on_as_it_is(engine: FakeEngine, iii: Iii) -> None:
    iii("t", "math::add", '{"a": 1, "b": 1}', "--action", '{"type": "later", "after": "5s"}')
    assert engine.calls[0]["action"] == {"type": "later", "after": "5s"}


def test_void_waits_until_the_engine_has_read_the_call_and_prints_nothing(engine: FakeEngine, iii: Iii) -> None:
    done = iii("trigger", "math::add", "a=1", "b=2", "--void")
    assert (done.stdout, done.returncode) == ("", 0)
    assert engine.calls[0]["action"] == {"type": "void"}
    assert "invocation_id" not in engine.calls[0]


def test_a_payload_of_five_megabytes_comes_from_stdin(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["text::length"] = lambda data: len(data["text"])
    done = iii("trigger", "text::length", "--json", "-", stdin=json.dumps({"text": "x" * 5_000_000}))
    assert done.stdout == "5000000\n"


def test_words_after_two_dashes_are_never_options(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["x::echo"] = lambda data: data
    assert iii("trigger", "x::echo", "--", "--raw=1").stdout == '{"--raw": 1}\n'


def test_a_wide_result_is_indented_and_raw_keeps_it_on_one_line(engine: FakeEngine, iii: Iii) -> None:
    wide = {"text": "x" * 80}
    engine.functions["x::wide"] = lambda _: wide
    assert iii("trigger", "x::wide").stdout == json.dumps(wide, indent=2) + "\n"
    assert iii("trigger", "x::wide", "--raw").stdout == json.dumps(wide, separators=(",", ":")) + "\n"


def test_an_empty_result_prints_nothing(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["x::none"] = lambda _: None
    assert (iii("trigger", "x::none").stdout, iii("trigger", "x::none").returncode) == ("", 0)


def test_control_and_bidi_characters_of_a_result_never_reach_the_terminal(engine: FakeEngine, iii: Iii) -> None:
    value = "\x1b[31m\x9b\u202eevil\x00\ud800"
    engine.functions["x::evil"] = lambda _: value
    out = iii("trigger", "x::evil").stdout
    assert json.loads(out) == value
    assert out.rstrip("\n").isprintable()


def test_a_terminal_that_is_not_utf8_gets_escapes(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["x::name"] = lambda _: "Zoë 😀"
    done = iii("trigger", "x::name", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.stdout == '"Zo\\u00eb \\ud83d\\ude00"\n'


def test_a_reader_that_has_seen_enough_causes_no_traceback(engine: FakeEngine, folder: Path) -> None:
    engine.functions["x::much"] = lambda _: ["line"] * 100_000
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "cli.main", "trigger", "x::much"]
    done = subprocess.run(
        command, cwd=folder, env=environment(), stdout=write, stderr=subprocess.PIPE, timeout=30, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_ctrl_c_ends_a_waiting_call_with_130(engine: FakeEngine, folder: Path) -> None:
    process: list[subprocess.Popen[bytes]] = []

    def interrupt(_: object) -> object:
        process[0].send_signal(signal.SIGINT)
        process[0].wait(20)
        return None

    engine.functions["x::wait"] = interrupt
    command = [sys.executable, "-m", "cli.main", "trigger", "x::wait", "--json", "-"]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as started:
        process.append(started)
        _, err = started.communicate(b"{}", timeout=30)
    assert (started.returncode, err) == (130, b"")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["trigger"], "error: missing FUNCTION\n"),
        (["trigger", "f", "{bad"], "error: --json: invalid JSON: Expecting property name"),
        (["trigger", "f", "--json", "{bad"], "  {bad\n   ^\n"),
        (["trigger", "f", "x"], "error: expected key=value, got `x`\n"),
        (["trigger", "f", "=1"], "error: a key must not be empty, got `=1`\n"),
        (["trigger", "f", "--jsn", "{}"], "error: unknown option --jsn\ndid you mean --json?\n"),
        (["trigger", "f", "--json"], "error: --json needs a value\n"),
        (["trigger", "f", "--void=1"], "error: --void takes no value\n"),
        (["trigger", "f", "--void", "--enqueue", "q"], "exclude each other"),
        (["trigger", "f", "--timeout-ms", "0"], "error: --timeout-ms must be from 1 to 86400000, got 0\n"),
        (["trigger", "f", "--metadata", "NaN"], "error: --metadata: invalid JSON: NaN is not JSON\n"),
    ],
)
def test_a_wrong_command_line_exits_with_2(iii: Iii, words: list[str], text: str) -> None:
    done = iii(*words)
    assert text in done.stderr
    assert (done.stdout, done.returncode) == ("", 2)


def test_json_that_is_no_object_cannot_be_combined_with_pairs(engine: FakeEngine, iii: Iii) -> None:
    done = iii("trigger", "f", "--json", "[]", "a=1")
    assert (done.stderr, done.returncode) == (
        "error: --json must be an object when it is combined with key=value pairs\n",
        2,
    )


def test_an_argument_that_is_no_text_is_refused_before_it_is_sent(engine: FakeEngine, folder: Path) -> None:
    command = [os.fsencode(sys.executable), b"-m", b"cli.main", b"trigger", b"x::y", b"a=\xff"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, timeout=30, check=False)
    assert done.stderr.startswith(b"error: this cannot be sent as JSON")
    assert (done.returncode, engine.calls) == (2, [])


def test_help_is_made_from_the_live_schema(engine: FakeEngine, iii: Iii) -> None:
    out = iii("trigger", "math::add", "--help").stdout
    assert "Add two numbers." in out
    assert "  a     number  yes                First number\n" in out
    assert "  b     number  no        3\n" in out
    assert "Example:\n  iii trigger math::add a=1\n" in out


def test_the_help_of_an_unknown_function_suggests(engine: FakeEngine, iii: Iii) -> None:
    done = iii("trigger", "math::ad", "-h")
    assert (done.stderr, done.returncode) == ("error: function math::ad not found. Did you mean math::add?\n", 1)


def test_help_without_an_engine_is_the_static_page_and_a_warning(iii: Iii) -> None:
    done = iii("trigger", "math::add", "--help")
    assert done.stderr.startswith("warning: no engine is running")
    assert ("--enqueue QUEUE" in done.stdout, done.returncode) == (True, 0)


def test_watch_calls_again_when_the_workers_generation_counts_up(engine: FakeEngine, folder: Path) -> None:
    answers = iter([1, 1, 2, 2, 2])
    engine.functions["engine::workers::list"] = lambda _: {
        "workers": [{"name": "math", "generation": next(answers), "instance": 0, "pid": 1}]
    }
    command = [sys.executable, "-m", "cli.main", "trigger", "math::add", "a=2", "b=3", "--watch"]
    with subprocess.Popen(
        command, cwd=folder, env=environment(PYTHONUNBUFFERED="1"), stdout=subprocess.PIPE
    ) as started:
        assert started.stdout is not None
        assert [started.stdout.readline(), started.stdout.readline()] == [b'{"c": 5}\n', b'{"c": 5}\n']
        started.terminate()


def test_the_short_path_imports_next_to_nothing(engine: FakeEngine, folder: Path) -> None:
    program = "import sys; sys.argv[1:] = ['trigger', 'math::add', 'a=2', 'b=3']; from cli.main import main; main();"
    program += "print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=folder, env=environment(), capture_output=True, text=True, check=True
    )
    answer, *modules = done.stdout.splitlines()
    assert answer == '{"c": 5}'
    assert LIGHT & set(modules) == set()


def test_progress_is_shown_on_a_terminal_and_gone_at_the_end(engine: FakeEngine, folder: Path) -> None:
    engine.progress = [{"done": 1, "total": 2}]
    reader, terminal = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", "trigger", "math::add", "--json", '{"a": 1, "b": 2}'],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=terminal,
            timeout=30,
            check=True,
        )
        shown = os.read(reader, 4096).decode()
    finally:
        os.close(terminal)
        os.close(reader)
    assert done.stdout == b'{"c": 3}\n'
    assert "[##########..........] 50%" in shown
    assert shown.endswith("\r\x1b[2K")
