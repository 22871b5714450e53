"""The click commands as real processes, in real folders or against a fake engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.commands.registry import COMMANDS
from cli.project.declarations import with_workers
from cli.project.init import files_of
from iii.engine.config.project import STANDARD_WORKERS, STDLIB_WORKERS
from tests.support.command import Iii, environment
from tests.support.fake_engine import FakeEngine, Refused

WORKER = {
    "name": "math",
    "state": "ready",
    "generation": 2,
    "pid": 7,
    "restarts": 0,
    "function_count": 1,
    "metrics": {},
}


def error_of(done: subprocess.CompletedProcess[str]) -> Any:
    """Return the error a command has printed as JSON."""
    return json.loads(done.stderr)["error"]


def test_ps_shows_one_row_a_worker(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["engine::workers::list"] = lambda _: {"workers": [WORKER]}
    header, row = iii("ps").stdout.splitlines()
    assert header.split()[:4] == ["NAME", "STATE", "GEN", "PID"]
    assert row.split()[:4] == ["math", "ready", "2", "7"]
    assert json.loads(iii("ps", "--json").stdout) == {"workers": [WORKER]}


def test_functions_passes_its_filters_and_shows_the_first_line(engine: FakeEngine, iii: Iii) -> None:
    done = iii("functions", "add", "--worker", "math", "--all")
    assert done.stdout.splitlines()[1].split(maxsplit=2) == ["math::add", "math", "Add two numbers."]
    asked = next(message for message in engine.received if message["type"] == "invokefunction")
    assert asked["data"] == {"search": "add", "worker": "math", "include_internal": True}


def test_functions_names_a_foreign_namespace(engine: FakeEngine, iii: Iii) -> None:
    engine.infos = {"a::b": {"function_id": "a::b", "namespace": "shop", "worker_name": "w"}}
    assert "a::b (shop)" in iii("functions").stdout


def test_triggers_lists_bindings_or_their_types(engine: FakeEngine, iii: Iii) -> None:
    binding = {"id": "t1", "trigger_type": "cron", "function_id": "a::b", "worker_name": "w", "config_summary": "{}"}
    kind = {"id": "cron", "worker_name": "cron", "description": "By the clock"}
    engine.functions["engine::triggers::list"] = lambda _: {
        "triggers": [{**kind, "bindings": [binding]}],
        "trigger_types": [kind],
    }
    assert iii("triggers").stdout.splitlines()[1].split() == ["cron", "a::b", "w", "{}", "t1"]
    assert iii("triggers", "--types").stdout.splitlines()[1] == "cron  cron    By the clock"


def test_the_public_words_for_workers_do_what_ours_do(engine: FakeEngine, iii: Iii, folder: Path) -> None:
    other = {**WORKER, "name": "web"}
    engine.functions["engine::workers::list"] = lambda _: {"workers": [WORKER, other]}
    assert iii("worker", "list").stdout == iii("ps").stdout
    assert json.loads(iii("worker", "status", "web", "--json").stdout) == {"workers": [other]}
    assert iii("worker", "status", "math").stdout == "\n".join(iii("ps").stdout.splitlines()[:2]) + "\n"
    missing = iii("worker", "status", "mat")
    assert (missing.stderr, missing.returncode) == ("error: there is no worker `mat`\ndid you mean `math`?\n", 2)
    (folder / "iii.toml").write_text("")
    assert "nothing has been logged yet" in iii("worker", "logs", "math").stderr
    assert "Start a new process of the worker." in iii("worker", "--help").stdout
    assert iii("worker", "lst").stderr == "error: there is no command `worker lst`\ndid you mean `iii worker list`?\n"


def test_workers_are_added_and_removed(iii: Iii, folder: Path) -> None:
    text = '# mine\n[workers.a]\nrun = "ls"\nafter = ["pubsub"]\n\n[profiles.x.workers.state]\nenv = { A = "1" }\n'
    (folder / "iii.toml").write_text(text + "[workers.pubsub]\n")
    assert iii("worker", "add", "state").stdout == "added state to iii.toml\n"
    refused = iii("worker", "remove", "-y", "pubsub")
    assert refused.stderr == (
        "error: the worker `a` starts after `pubsub`\ntake `pubsub` out of its `after`, iii.toml line 2\n"
    )
    assert iii("worker", "remove", "state").returncode == 130
    assert iii("worker", "remove", "-y", "state", "pubsub", "a").stdout == "removed state, pubsub, a from iii.toml\n"
    left = (folder / "iii.toml").read_text()
    assert "# mine" in left
    assert not any(name in left for name in ("state", "pubsub", "ls"))
    assert iii("worker", "remove", "-y", "state").returncode == 2


def test_an_engine_is_named_by_its_host_and_port(iii: Iii) -> None:
    done = iii("ps", "--address", "127.0.0.1", "--port", "1")
    assert "no engine answers at ws://127.0.0.1:1" in done.stderr
    assert "no engine answers at ws://127.0.0.1:1" in iii("trigger", "--port", "1", "a::b").stderr
    assert "no engine answers at ws://[::1]:1" in iii("trigger", "--address=::1", "--port=1", "a::b").stderr
    for words, text in [
        (["--port", "0"], "--port must be from 1 to 65535, got 0"),
        (["--address", "a/b"], "--address must be a host, got 'a/b'"),
        (["--engine", "ws://x", "--port", "1"], "--engine, and --address with --port, name the same"),
    ]:
        assert (text in iii("ps", *words).stderr, text in iii("trigger", "a::b", *words).stderr) == (True, True)


@pytest.mark.parametrize("verb", ["restart", "stop", "start"])
def test_worker_asks_for_each_name_and_says_what_became_of_it(engine: FakeEngine, iii: Iii, verb: str) -> None:
    asked: list[Any] = []

    def manage(data: Any) -> Any:
        asked.append(data)
        return {"workers": [{"name": data["name"], "state": "ready", "generation": 3}]}

    engine.functions[f"engine::workers::{verb}"] = manage
    assert iii("worker", verb, "math", "web").stdout == "math: ready, generation 3\nweb: ready, generation 3\n"
    assert asked == [{"name": "math"}, {"name": "web"}]


def test_an_error_of_the_engine_is_json_when_asked_for(engine: FakeEngine, iii: Iii) -> None:
    def missing(_: Any) -> Any:
        raise Refused("NOT_FOUND", "there is no worker mat")

    engine.functions["engine::workers::stop"] = missing
    done = iii("worker", "stop", "mat", "--json")
    assert error_of(done) == {"code": "NOT_FOUND", "message": "engine::workers::stop: there is no worker mat"}
    assert (done.stdout, done.returncode) == ("", 1)


def test_no_engine_as_json(iii: Iii) -> None:
    done = iii("ps", "--json")
    assert error_of(done)["code"] == "engine_not_running"
    assert done.returncode == 3


def test_check_points_at_the_mistake(iii: Iii, folder: Path) -> None:
    (folder / "iii.toml").write_text('[workers.a]\nrun = "ls"\nrestrat = "never"\n')
    done = iii("check")
    assert done.stderr == "error: iii.toml:3:1: unknown key `restrat`; did you mean `restart`?\n"
    assert (done.stdout, done.returncode) == ("", 2)
    body = error_of(iii("check", "--json"))
    assert (body["code"], body["file"], body["line"]) == ("config_error", "iii.toml", 3)
    assert body["hint"] == "did you mean `restart`?"


def test_check_finds_the_project_from_a_folder_below(iii: Iii, folder: Path) -> None:
    iii("init")
    command = [sys.executable, "-m", "cli.main", "check", "--json"]
    done = subprocess.run(
        command, cwd=folder / ".iii", env=environment(), capture_output=True, text=True, timeout=30, check=True
    )
    assert json.loads(done.stdout) == {"file": str(folder / "iii.toml"), "workers": ["hello"]}


def test_without_a_project_the_way_to_one_is_shown(iii: Iii) -> None:
    done = iii("dev")
    assert (done.returncode, "make a project with `iii init`" in done.stderr) == (2, True)


def test_env_shows_value_and_source_and_no_undeclared_secret(iii: Iii, folder: Path) -> None:
    iii("init")
    (folder / ".env").write_text("GREETING=hi\n")
    done = iii("env", "hello", "--json", AWS_SECRET_ACCESS_KEY="hunter2")
    entries = json.loads(done.stdout)["environment"]
    assert entries["GREETING"] == {"value": "hi", "source": ".env"}
    assert entries["III_WORKER_NAME"] == {"value": "hello", "source": "reserved"}
    assert "hunter2" not in done.stdout
    assert ["GREETING", ".env", "hi"] in [line.split() for line in iii("env", "hello").stdout.splitlines()]


def test_env_of_an_unknown_worker_suggests(iii: Iii) -> None:
    iii("init")
    done = iii("env", "hell")
    assert (done.stderr, done.returncode) == (
        "error: there is no worker `hell` in iii.toml\ndid you mean `hello`?\n",
        2,
    )


def test_add_keeps_comments_and_mode_and_refuses_a_second_time(iii: Iii, folder: Path) -> None:
    iii("init")
    (folder / "iii.toml").chmod(0o600)
    assert iii("add", "state", "queue").stdout == "added state, queue to iii.toml\n"
    text = (folder / "iii.toml").read_text()
    assert text == files_of("minimal", "x")["iii.toml"] + "\n[workers.state]\n\n[workers.queue]\n"
    assert (folder / "iii.toml").stat().st_mode & 0o777 == 0o600
    assert iii("check").stdout == "iii.toml is valid: 3 workers (hello, state, queue)\n"
    assert "is already in iii.toml, line 7" in iii("add", "state").stderr


def test_add_knows_only_standard_workers(iii: Iii) -> None:
    iii("init")
    done = iii("add", "stat")
    assert (done.returncode, "did you mean `state`?" in done.stderr) == (2, True)


def test_add_writes_down_what_a_worker_cannot_do_without(iii: Iii, folder: Path) -> None:
    iii("init")
    assert iii("add", "bridge").stdout == "added bridge to iii.toml; fill in workers.bridge.config.url\n"
    assert 'url must be the other engine\'s ws://host:port, got ""' in iii("check").stderr
    text = (folder / "iii.toml").read_text()
    (folder / "iii.toml").write_text(text.replace('url = ""', 'url = "ws://127.0.0.1:1"'))
    assert iii("check").stdout == "iii.toml is valid: 2 workers (hello, bridge)\n"


def test_every_worker_that_can_be_added_exists() -> None:
    for name in STANDARD_WORKERS:
        assert (STDLIB_WORKERS / name / "__main__.py").is_file(), name


def test_a_worker_is_added_to_a_file_that_has_none() -> None:
    assert with_workers("# mine\n[engine]\n", {"state": ()}) == "# mine\n[engine]\n\n[workers.state]\n"


def test_help_lists_every_command_and_imports_none(iii: Iii) -> None:
    out = iii("--help").stdout
    assert [name for name in COMMANDS if f"  {name} " not in out] == []


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_a_page(iii: Iii, name: str) -> None:
    done = iii(name, "--help")
    assert (done.stdout.startswith("Usage: iii"), done.stderr, done.returncode) == (True, "", 0)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["functionss"], "did you mean `iii functions`?"),
        (["ps", "--jsn"], "see `iii ps --help`"),
        (["worker", "restart"], "Missing argument"),
        (["init", "--template", "x"], "Invalid value"),
    ],
)
def test_a_wrong_command_line_exits_with_2(iii: Iii, words: list[str], text: str) -> None:
    done = iii(*words)
    assert text in done.stderr
    assert (done.stdout, done.returncode, "Traceback" in done.stderr) == ("", 2, False)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(iii: Iii, shell: str) -> None:
    assert "_III_COMPLETE" in iii("completion", shell).stdout


def test_a_plain_dev_loads_no_click_before_its_project_is_read(tmp_path: Path) -> None:
    code = "import sys; from cli.main import main; sys.argv[1:] = ['dev']; print(main(), 'click' in sys.modules)"
    (tmp_path / "iii.toml").write_text('[workers.a]\nrun = "no.py"\nno = 1\n')
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n"
    assert "unknown key `no`" in done.stderr


def test_add_help_shows_what_the_config_of_a_worker_may_hold(iii: Iii) -> None:
    shown = iii("add", "queue", "--help").stdout
    assert "[workers.queue.config]:" in shown
    assert "queue_configs.NAME.max_retries" in shown
    assert "[default: 3]" in " ".join(shown.split())


def test_all_mistakes_of_a_file_are_told_at_once(iii: Iii, folder: Path) -> None:
    (folder / "iii.toml").write_text("[workers.http.config]\nprot = 1\n[workers.state]\ninstances = 0\n")
    done = iii("check")
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        [
            "error: iii.toml:2:1: unknown key `prot`; did you mean `port`?",
            "error: iii.toml:4:1: instances must be a whole number from 1 to 64, got 0",
        ],
    )
    bodies = json.loads(iii("check", "--json").stderr)
    assert [bodies["error"]["line"], *(other["line"] for other in bodies["others"])] == [2, 4]
