"""The configuration worker under a real engine: crashes, owners, and settings of standard workers that change live."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any

import pytest

from iii.errors import InvocationError
from tests.support.live_project import BOUND, ROOT, Project, free_ports, project

ALONE = '[engine]\nlisten = "off"\n[workers.configuration]\n'
WATCHED = ALONE + '[workers.watcher]\nrun = "watcher.py"\nafter = ["configuration"]\n'
WATCHER = """
def seen(event): say(event["event_type"], event["id"], event["new_value"])
worker.register_function("watcher::seen", seen)
worker.register_trigger({"type": "configuration", "function_id": "watcher::seen", "config": {}})
"""
ENTRY = {"id": "app", "name": "App", "description": "d", "schema": {"type": "integer"}}
STANDARD = """
[engine]
listen = "off"
[workers.configuration]
[workers.http.config]
port = PORT
access_log = false
default_timeout = "9s"
[workers.queue]
[workers.observability.config]
prometheus = false
[workers.shop]
run = "shop.py"
after = ["http", "queue", "observability"]
"""
SHOP = """
worker.register_function("shop::fast", lambda request: {"status_code": 200, "body": "fast"})
worker.register_function("shop::job", lambda job: say("job", job))
config = {"api_path": "fast", "http_method": "POST"}
worker.register_trigger({"type": "http", "function_id": "shop::fast", "config": config})
"""


def set_value(running: Project, id: str, value: Any) -> Any:
    """Set until it is acknowledged: a call may still reach a process that is being killed."""
    for _ in range(200):
        try:
            return running.call("configuration::set", {"id": id, "value": value})
        except InvocationError as error:
            if error.code != "invocation_stopped":
                raise
    raise AssertionError("no value was acknowledged")


def value_of(running: Project, id: str) -> Any:
    return running.call("configuration::get", {"id": id})["value"]


def until(holds: Callable[[], bool], what: str) -> None:
    """Ask until it holds."""
    end = time.monotonic() + BOUND
    while not holds():
        assert time.monotonic() < end, f"never: {what}"


def refusal(running: Project, id: str, value: Any) -> InvocationError:
    with pytest.raises(InvocationError) as caught:
        running.call("configuration::set", {"id": id, "value": value})
    return caught.value


def test_acknowledged_values_and_their_events_survive_kills(tmp_path: Path) -> None:
    with project(tmp_path, WATCHED, {"watcher": WATCHER}) as running:
        running.call("configuration::register", {**ENTRY, "initial_value": 0})
        for number in range(1, 4):
            os.kill(running.pid_of("configuration"), signal.SIGKILL)
            set_value(running, "app", number)
            assert value_of(running, "app") == number
            running.wait(f"configuration:updated app {number}")
        running.kill()
        running.start()
        assert value_of(running, "app") == 3
        # The schema is stored, too: nobody has to register again.
        assert refusal(running, "app", "x").code == "SCHEMA_INVALID"
        assert set_value(running, "app", 4) == {"old_value": 3, "new_value": 4}
        running.wait("configuration:updated app 4")


def test_an_event_waits_for_a_watcher_that_is_away(tmp_path: Path) -> None:
    with project(tmp_path, WATCHED, {"watcher": WATCHER}) as running:
        running.call("configuration::register", ENTRY)
        running.wait("configuration:registered app None")
        os.kill(running.pid_of("watcher"), signal.SIGSTOP)
        set_value(running, "app", 1)
        set_value(running, "app", 2)
        os.kill(running.pid_of("configuration"), signal.SIGKILL)
        os.kill(running.pid_of("watcher"), signal.SIGKILL)
        running.wait("configuration:updated app 1")
        running.wait("configuration:updated app 2")


def test_two_writers_each_replace_what_the_other_wrote_last(tmp_path: Path) -> None:
    """Old and new values make one chain: no write is lost between a reading and a writing."""
    with project(tmp_path, ALONE, {}) as running:
        running.call("configuration::register", {**ENTRY, "initial_value": 0})
        steps: list[tuple[int, int]] = []

        def write(first: int) -> None:
            with running.connect() as connection:
                for number in range(first, first + 100):
                    done = connection.call("configuration::set", {"id": "app", "value": number})
                    steps.append((done["old_value"], done["new_value"]))

        writers = [Thread(target=write, args=(first,)) for first in (1, 1001)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(BOUND * 2)
        following = dict(steps)
        assert len(following) == len(steps) == 200
        value = 0
        for _ in steps:
            value = following[value]
        assert value == value_of(running, "app")


def test_files_and_store_say_the_same_after_kills_in_the_middle_of_writes(tmp_path: Path) -> None:
    toml = ALONE.replace("[workers.configuration]", '[workers.configuration.config]\ndirectory = "conf"')
    with project(tmp_path, toml, {}) as running:
        running.call("configuration::register", {**ENTRY, "initial_value": 0})
        acknowledged = [0]
        end = Event()

        def write() -> None:
            number = 0
            while not end.is_set():
                number += 1
                set_value(running, "app", number)
                acknowledged.append(number)

        writer = Thread(target=write)
        writer.start()
        try:
            for _ in range(5):
                seen = len(acknowledged)
                until(lambda seen=seen: len(acknowledged) > seen + 3, "more is acknowledged")  # type: ignore[misc]
                os.kill(running.pid_of("configuration"), signal.SIGKILL)
        finally:
            end.set()
            writer.join(BOUND)
        value = value_of(running, "app")
        assert value == acknowledged[-1]
        assert f"value: {value}\n" in (tmp_path / "conf" / "app.yaml").read_text()
        os.kill(running.pid_of("configuration"), signal.SIGKILL)
        assert set_value(running, "app", -1)["old_value"] == value
        assert [path.name for path in (tmp_path / "conf").iterdir()] == ["app.yaml"]


def test_a_folder_of_files_is_followed(tmp_path: Path) -> None:
    toml = WATCHED.replace("[workers.configuration]", '[workers.configuration.config]\ndirectory = "conf"')
    file = tmp_path / "conf" / "app.yaml"
    with project(tmp_path, toml, {"watcher": WATCHER}) as running:
        running.call("configuration::register", {**ENTRY, "initial_value": 1})
        assert "value: 1" in file.read_text()
        file.write_text("value: 2")
        running.wait("configuration:updated app 2")
        file.write_text("value: two")
        running.wait('app.yaml: app: "two" is not of type')
        assert value_of(running, "app") == 2
        file.write_text("value: 3")
        running.wait("configuration:updated app 3")
        running.kill()
        file.write_text("value: 4")  # while nobody looks
        running.start()
        running.wait("configuration:updated app 4")
        file.unlink()
        running.wait("configuration:deleted app None")


def test_a_configuration_goes_a_while_after_the_last_one_bound_to_it(tmp_path: Path) -> None:
    toml = WATCHED.replace("[workers.configuration]", "[workers.configuration.config]\nttl_seconds = 0.2")
    body = WATCHER + (
        'bound = worker.register_trigger({"type": "configuration", "function_id": "watcher::seen",'
        ' "config": {"configuration_id": "app"}})\n'
        'worker.register_function("watcher::unbind", lambda _: bound.unregister())\n'
    )
    with project(tmp_path, toml, {"watcher": body}) as running:
        running.call("configuration::register", ENTRY)
        running.call("configuration::register", {**ENTRY, "id": "free"})
        # A process that dies keeps its binding: nothing goes.
        os.kill(running.pid_of("watcher"), signal.SIGKILL)
        set_value(running, "app", 1)
        running.wait("configuration:updated app 1", count=2)
        running.call("watcher::unbind")
        running.wait("configuration:deleted app None")
        assert listed(running) == {"free"}


def test_another_engine_keeps_the_configurations(tmp_path: Path) -> None:
    (there, here) = (tmp_path / "there", tmp_path / "here")
    there.mkdir()
    here.mkdir()
    ports = free_ports("there", "here")
    url = f"ws://127.0.0.1:{ports['there']}"
    adapter = f'[workers.configuration.config]\nadapter = {{name = "bridge", config = {{url = "{url}"}}}}'
    central = WATCHED.replace('"off"', f'"127.0.0.1:{ports["there"]}"')
    forwarding = WATCHED.replace("[workers.configuration]", adapter).replace('"off"', f'"127.0.0.1:{ports["here"]}"')
    owner = WATCHER + (
        'NO = {"refused": {"code": "TOO_HIGH", "message": "no"}}\n'
        'def check(request): return NO if request["check"] == 9 else {}\n'
        'worker.register_function("watcher::check", check)\n'
        'worker.register_trigger({"type": "configuration", "function_id": "watcher::check",'
        ' "config": {"configuration_id": "app", "event_types": ["configuration:deleted"]},'
        ' "metadata": {"checks": True}})\n'
    )
    with (
        project(there, central, {"watcher": WATCHER}) as keeper,
        project(here, forwarding, {"watcher": owner}) as running,
    ):
        entry = running.call("configuration::register", {**ENTRY, "initial_value": 1})
        assert entry == {**ENTRY, "value": 1}
        for each in (keeper, running):
            each.wait("configuration:registered app 1")
        assert value_of(keeper, "app") == value_of(running, "app") == 1
        assert set_value(keeper, "app", 2) == {"old_value": 1, "new_value": 2}
        running.wait("configuration:updated app 2")
        assert listed(running) == {"app"}
        running.wait(f"the configurations are those of {url}")
        assert running.call("configuration::schema", {"id": "app"}) == ENTRY
        assert refusal(running, "app", "x").code == "SCHEMA_INVALID"
        assert refusal(running, "app", 9).code == "TOO_HIGH"
        assert refusal(running, "none", 1).code == "NOT_REGISTERED"
        assert value_of(keeper, "app") == 2
        # Its process dies: the other engine tells of what happened meanwhile.
        os.kill(running.pid_of("configuration"), signal.SIGKILL)
        set_value(keeper, "app", 3)
        running.wait("configuration:updated app 3")
        os.kill(keeper.pid_of("configuration"), signal.SIGKILL)
        assert set_value(running, "app", 4) == {"old_value": 3, "new_value": 4}


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports("http")["http"]


@pytest.fixture(scope="module")
def standard(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Project]:
    folder: Path = tmp_path_factory.mktemp("standard")
    with project(folder, STANDARD.replace("PORT", str(port)), {"shop": SHOP}) as running:
        for id in ("http", "queue", "observability"):
            until(lambda id=id: id in listed(running), f"{id} is registered")  # type: ignore[misc]
        yield running


def listed(running: Project) -> set[str]:
    return {row["id"] for row in running.call("configuration::list")["configurations"]}


class Load:
    """Requests, jobs and calls without pause, until it ends; what failed of them."""

    def __init__(self, running: Project, port: int) -> None:
        self._running, self._port = running, port
        self._end = Event()
        self._changed = Condition()
        self.failed: list[Any] = []
        self.made = 0
        self._threads = [Thread(target=self._repeat, args=(work,)) for work in (self._requests, self._calls)]

    def _repeat(self, work: Callable[[], Iterator[None]]) -> None:
        try:
            for _ in work():
                with self._changed:
                    self.made += 1
                    self._changed.notify_all()
                if self._end.is_set():
                    return
        except (OSError, HTTPException, InvocationError, AssertionError) as error:
            with self._changed:
                self.failed.append(error)
                self._changed.notify_all()

    def go_on(self) -> None:
        """Wait until more has been done, or something has failed."""
        seen = self.made
        with self._changed:
            assert self._changed.wait_for(lambda: self.made > seen or self.failed, BOUND)

    def _requests(self) -> Iterator[None]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=BOUND)
        try:
            while True:
                connection.request("POST", "/fast", b"{}", {"content-type": "application/json"})
                response = connection.getresponse()
                body = response.read()
                if (response.status, body) != (200, b'"fast"'):
                    raise AssertionError((response.status, body))
                yield
        finally:
            connection.close()

    def _calls(self) -> Iterator[None]:
        with self._running.connect() as connection:
            while True:
                connection.call("iii::queue::list", {})
                connection.call("engine::sampling::rules", {})
                action = {"type": "enqueue", "queue": "default"}
                answer = connection.request("shop::job", 1, 20_000, action=action)
                assert "error" not in answer, answer
                yield

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(BOUND)


def test_settings_change_under_load_without_a_failed_call(standard: Project, port: int) -> None:
    names = ("http", "queue", "observability")
    processes = [standard.pid_of(name) for name in names]
    with Load(standard, port) as load:
        for turn in range(12):
            limits = {"concurrency_request_limit": 500 + turn, "max_body": "1KB" if turn % 2 else "1MB"}
            set_value(standard, "http", {"default_timeout": f"{5 + turn % 2}s", **limits})
            set_value(standard, "queue", {"queue_configs": {"mail": {"concurrency": 2 + turn}}})
            ratio = (turn + 1) / 20
            set_value(standard, "observability", {"sampling_ratio": ratio, "logs_max_count": 5000 + turn})
            status = 413 if turn % 2 else 200
            until(lambda status=status: status_of(port, b"x" * 2000) == status, "the new limit")  # type: ignore[misc]
            until(lambda ratio=ratio: sampling(standard) == ratio, "the new sampling")  # type: ignore[misc]
            until(lambda turn=turn: concurrency(standard) == 2 + turn, "the new queue")  # type: ignore[misc]
            load.go_on()
    assert load.failed == []
    assert load.made > 12
    assert [standard.pid_of(name) for name in names] == processes


def sampling(running: Project) -> Any:
    return running.call("engine::sampling::rules")["traces"]["default_ratio"]


def concurrency(running: Project) -> Any:
    return {row["name"]: row["concurrency"] for row in running.call("iii::queue::list")["queues"]}.get("mail")


def status_of(port: int, body: bytes, **headers: str) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=BOUND)
    connection.request("POST", "/fast", body, {"content-type": "text/plain", **headers})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def test_http_takes_limits_and_origins_live_and_keeps_them_over_restarts(standard: Project, port: int) -> None:
    set_value(standard, "http", {})
    until(lambda: status_of(port, b"x" * 2000) == 200, "the default limit")
    set_value(standard, "http", {"max_body": "1KB", "cors": {"allowed_origins": ["https://shop.example"]}})
    until(lambda: status_of(port, b"x" * 2000) == 413, "the new limit")
    assert status_of(port, b"x", Origin="https://shop.example") == 200
    assert status_of(port, b"x", Origin="https://other.example") == 403
    os.kill(standard.pid_of("http"), signal.SIGKILL)

    def is_back() -> bool:
        try:
            return status_of(port, b"x" * 2000) == 413
        except OSError:
            return False

    until(is_back, "the limit after a crash")


def test_a_broken_value_or_one_that_needs_a_restart_changes_nothing_and_says_so(standard: Project) -> None:
    before = {id: value_of(standard, id) for id in ("http", "queue", "observability")}
    for id, value, code, words in (
        ("http", {"port": 1}, "RESTART_REQUIRED", "port of http cannot change while it runs"),
        ("http", {"default_timeout": "soon"}, "SCHEMA_INVALID", "default_timeout must be"),
        ("http", {"default_timout": "1s"}, "SCHEMA_INVALID", "did you mean `default_timeout`"),
        ("http", [], "SCHEMA_INVALID", "are an object"),
        ("queue", {"adapter": {"name": "in_memory"}}, "RESTART_REQUIRED", "iii.toml"),
        ("queue", {"queue_configs": {"mail": {"concurrency": 0}}}, "SCHEMA_INVALID", "concurrency"),
        ("queue", {"queue_configs": {"mail": {"type": "fifo"}}}, "SCHEMA_INVALID", "message_group_field"),
        ("observability", {"sampling_ratio": 7}, "SCHEMA_INVALID", "sampling_ratio"),
        ("observability", {"exporter": "otlp"}, "RESTART_REQUIRED", "exporter of observability"),
        ("observability", {"alerts": [{"name": "a"}]}, "SCHEMA_INVALID", "metric"),
    ):
        error = refusal(standard, id, value)
        assert (error.code, words in error.message) == (code, True), (id, value, error.code, error.message)
    assert {id: value_of(standard, id) for id in before} == before
    # What iii.toml says already may be said again.
    assert set_value(standard, "observability", {"prometheus": False, "alerts": []})


def test_a_broken_file_of_settings_changes_nothing_and_says_so(tmp_path: Path) -> None:
    toml = ALONE.replace("[workers.configuration]", '[workers.configuration.config]\ndirectory = "conf"')
    with project(tmp_path, toml + "[workers.queue]\n", {}) as running:
        until(lambda: "queue" in listed(running), "queue is registered")
        file = tmp_path / "conf" / "queue.yaml"
        file.write_text("value: {queue_configs: {mail: {concurrency: 3}}}")
        until(lambda: concurrency(running) == 3, "the file")
        for text, words in (
            ("value: {queue_configs: {mail: {concurrency: 0}}}", "concurrency"),
            ("value: {queue_configs", "queue.yaml: while parsing"),
            ("value: {adapter: {name: in_memory}}", "adapter of queue cannot change while it runs"),
            ("values: {}", "must be a table with a value"),
            ("value: {queue_configs: {mail: {concurrency: '${NOWHERE}'}}}", "no value for NOWHERE"),
            ("\x00", "queue.yaml: unacceptable character"),
        ):
            file.write_text(text)
            assert "nothing has changed" in running.wait(words)[-1], text
            assert value_of(running, "queue") == {"queue_configs": {"mail": {"concurrency": 3}}}
        assert concurrency(running) == 3
        file.write_text("value: {queue_configs: {mail: {concurrency: 5}}}")
        until(lambda: concurrency(running) == 5, "the mended file")


def test_alerts_are_replaced_live(standard: Project) -> None:
    rule = {"name": "many", "metric": "iii.invocations.total", "threshold": 0}
    set_value(standard, "observability", {"alerts": [rule]})
    until(lambda: len(standard.call("engine::alerts::list")["alerts"]) == 1, "the rule")
    assert standard.call("engine::alerts::evaluate")["evaluated"] == 1
    set_value(standard, "observability", {"alerts": []})
    until(lambda: standard.call("engine::alerts::list")["alerts"] == [], "no rule")


def test_what_was_changed_last_holds_iii_toml_or_a_set_value(tmp_path: Path) -> None:
    toml = ALONE + "[workers.queue.config.queue_configs.mail]\nconcurrency = 3\n"
    with project(tmp_path, toml, {}) as running:
        until(lambda: "queue" in listed(running), "queue is registered")
        assert value_of(running, "queue") == {"queue_configs": {"mail": {"concurrency": 3}}}
        set_value(running, "queue", {"queue_configs": {"mail": {"concurrency": 4}}})
        until(lambda: concurrency(running) == 4, "the set value")
        running.kill()
        running.start()
        until(lambda: concurrency(running) == 4, "the set value, again")
        running.kill()
        (tmp_path / "iii.toml").write_text(toml.replace("= 3", "= 5"))
        running.start()
        until(lambda: value_of(running, "queue") == {"queue_configs": {"mail": {"concurrency": 5}}}, "iii.toml")
        until(lambda: concurrency(running) == 5, "the edit")


def test_settings_have_a_place_as_soon_as_the_worker_is_added(tmp_path: Path) -> None:
    with project(tmp_path, '[engine]\nlisten = "off"\n[workers.queue]\n', {}, "dev") as running:
        with pytest.raises(InvocationError):
            running.call("configuration::list")
        assert iii(running, "add", "configuration").returncode == 0
        running.wait("configuration")

        def is_there() -> bool:
            try:
                return "queue" in listed(running)
            except InvocationError:
                return False

        until(is_there, "queue is registered")
        set_value(running, "queue", {"queue_configs": {"mail": {"concurrency": 9}}})
        until(lambda: concurrency(running) == 9, "the new queue")


def iii(running: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("III_")}
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=running.folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )


def test_the_command_line_lists_reads_and_sets(standard: Project) -> None:
    standard.call("configuration::register", {**ENTRY, "schema": {"type": "object"}, "initial_value": {"a": 1}})
    assert iii(standard, "config", "list").stdout.splitlines()[0].split() == ["ID", "NAME", "DESCRIPTION"]
    rows = [json.loads(line) for line in iii(standard, "config", "list", "--json").stdout.splitlines()]
    assert [row["id"] for row in rows] == ["app", "http", "observability", "queue"]
    assert iii(standard, "config", "set", "app", "b=${B:2}", "c=x").returncode == 0
    assert json.loads(iii(standard, "config", "get", "app", "--json").stdout) == {"a": 1, "b": 2, "c": "x"}
    assert json.loads(iii(standard, "config", "get", "app", "--raw").stdout)["b"] == "${B:2}"
    done = iii(standard, "config", "set", "app", "--unset", "b", "--json")
    assert json.loads(done.stdout)["new_value"] == {"a": 1, "c": "x"}
    assert iii(standard, "config", "set", "app", '{"z": "a=b"}').returncode == 0
    assert json.loads(iii(standard, "config", "get", "app").stdout) == {"z": "a=b"}
    for arguments, code, words in (
        (("get", "none"), 1, "there is no configuration none"),
        (("set", "app", "5"), 1, "is not of type"),
        (("set", "http", "port=1"), 1, "cannot change while it runs"),
        (("set", "app"), 2, "nothing to set"),
        (("set", "app", "a=1", "b"), 2, "b is no KEY=VALUE"),
        (("set", "app", "--unset", "b"), 2, "app has no key b"),
    ):
        done = iii(standard, "config", *arguments)
        assert (done.returncode, words in done.stderr) == (code, True), (arguments, done)
    failed = iii(standard, "config", "get", "none", "--json")
    assert json.loads(failed.stdout or failed.stderr)["error"]["code"] == "NOT_FOUND"
