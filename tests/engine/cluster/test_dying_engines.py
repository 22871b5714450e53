"""Calls while engines die and come back: nothing runs twice, and what fails had been given to an engine that died."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.engine_cluster import EngineCluster
from tests.support.ground import SDK, eventually

# Each run of a call leaves a file, so that a second one shows.
MARK = f"""
    {SDK.splitlines()[0]}
    {SDK.splitlines()[1]}
    import os, time

    def mark(payload):
        open(f"{{payload['folder']}}/{{payload['id']}}.{{os.getpid()}}", "x").close()
        time.sleep(0.02)
        return payload["id"]

    worker.register_function("math::mark", mark)
    worker.register_function("math::again", mark, metadata={{"idempotent": True}})
"""


class Callers:
    """Threads that call through engine a, one call after the other, until they are told to end."""

    def __init__(self, cluster: EngineCluster, folder: Path, count: int) -> None:
        self._ground = cluster["a"]
        self._folder = folder
        self._is_over = threading.Event()
        self.errors: dict[str, str] = {}  # code by id
        self.done: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        function_id = "math::again" if number % 2 else "math::mark"
        with self._ground.connection() as connection:
            count = 0
            while not self._is_over.is_set():
                count += 1
                id = f"{function_id[6:]}-{number}-{count}"
                answer = connection.request(function_id, {"folder": str(self._folder), "id": id}, 20_000)
                if answer.get("error"):
                    self.errors[id] = answer["error"]["code"]
                else:
                    self.done.append(id)

    def end(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def callers_of(cluster: EngineCluster, ran: Path) -> Callers:
    """Start engines a, b and c, and callers on a of what b and c have."""
    ran.mkdir()
    cluster.add("a")
    for name in "bc":
        cluster.add(name).worker("math", MARK)
    cluster.start()
    eventually(lambda: cluster.functions("a").get("math::mark") == ["b", "c"])
    return Callers(cluster, ran, 8)


def runs_in(ran: Path) -> Counter[str]:
    return Counter(path.name.rpartition(".")[0] for path in ran.iterdir())


def die_and_come_back(cluster: EngineCluster, tmp_path: Path, seconds: float) -> None:
    ran = tmp_path / "ran"
    callers = callers_of(cluster, ran)
    end = time.monotonic() + seconds
    deaths = 0
    try:
        while time.monotonic() < end or not deaths:
            name = "bc"[deaths % 2]
            known = len(callers.done)
            eventually(lambda known=known: len(callers.done) > known + 50)  # type: ignore[misc]
            cluster.kill(name)
            deaths += 1
            after = len(callers.done)
            eventually(lambda after=after: len(callers.done) > after + 50)  # type: ignore[misc]
            cluster.start_again(name)
            eventually(lambda: cluster.functions("a").get("math::mark") == ["b", "c"])
    finally:
        callers.end()
    runs = runs_in(ran)
    ends = Counter(callers.errors.values())
    assert set(ends) <= {"invocation_stopped"}, ends
    assert not [id for id in callers.errors if id.startswith("again")], callers.errors
    assert [id for id in callers.done if not runs[id]] == []
    assert [id for id, count in runs.items() if count > 1 and id.startswith("mark")] == []
    assert not [id for id in callers.errors if runs[id] > 1]
    # At most one call of each caller was with an engine when that died.
    assert len(callers.errors) <= 8 * deaths


def test_nothing_runs_twice_and_idempotent_calls_do_not_fail(cluster: EngineCluster, tmp_path: Path) -> None:
    die_and_come_back(cluster, tmp_path, 0.0)


def test_engines_that_are_replaced_one_after_the_other_fail_no_call(cluster: EngineCluster, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    callers = callers_of(cluster, ran)
    try:
        for name in "bc":
            known = len(callers.done)
            eventually(lambda known=known: len(callers.done) > known + 50)  # type: ignore[misc]
            assert cluster[name].stop() == 0
            cluster.start_again(name)
            eventually(lambda: cluster.functions("a").get("math::mark") == ["b", "c"])
    finally:
        callers.end()
    assert callers.errors == {}
    runs = runs_in(ran)
    assert sorted(runs) == sorted(callers.done)
    assert set(runs.values()) == {1}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_runs_twice_for_a_minute(cluster: EngineCluster, tmp_path: Path) -> None:
    die_and_come_back(cluster, tmp_path, 60.0)
