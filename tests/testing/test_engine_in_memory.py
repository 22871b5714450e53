"""The engine for users' tests: real workers and real routing, in memory, with a clock by hand."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from iii import InvocationError
from iii.testing import Engine, project

ROOT = Path(__file__).resolve().parents[2]
BOUND = 30.0


@pytest.fixture
def engine():
    with Engine() as made:
        yield made


def test_functions_are_called_by_fields_or_payload(engine):
    worker = engine.worker("math")

    @worker.function("math::add")
    def add(a: float, b: float) -> float:
        return a + b

    worker.register_function("math::echo", lambda payload: payload)
    assert engine.call("math::add", a=2, b=3) == 5
    assert engine.call("math::echo", [1]) == [1]
    assert engine.call("math::echo") is None


def test_workers_call_each_other_sync_and_async(engine):
    first, second = engine.worker("first"), engine.worker("second")
    first.register_function("first::double", lambda n: n * 2)

    async def four_times(n):
        return await second.trigger_async("second::also", await second.trigger_async("first::double", n))

    second.register_function("second::also", lambda n: second.trigger("first::double", n))
    second.register_function("second::four_times", four_times)
    assert engine.call("second::four_times", 3) == 12


def test_payloads_are_checked_as_by_the_real_engine(engine):
    @engine.worker().function("math::half")
    def half(n: int) -> float:
        return n / 2

    with pytest.raises(InvocationError, match="n must be an integer") as caught:
        engine.call("math::half", n="two")
    assert caught.value.code == "invalid_payload"


def test_unknown_functions_and_handlers_that_raise_are_errors(engine):
    engine.worker().register_function("math::bad", lambda _: 1 / 0)
    with pytest.raises(InvocationError, match="division by zero"):
        engine.call("math::bad")
    with pytest.raises(InvocationError, match=r"Did you mean math::bad\?"):
        engine.call("math::bed")


def test_bound_functions_are_fired_with_condition_and_metadata(engine):
    worker = engine.worker()
    worker.register_function("m::seen", lambda payload, metadata: [payload, metadata])
    worker.register_function("m::positive", lambda n: n > 0)
    binding = {"type": "sensor", "function_id": "m::seen"}
    worker.register_trigger({**binding, "metadata": {"k": 1}})
    worker.register_trigger({**binding, "config": {"condition_function_id": "m::positive"}})
    assert engine.fire("sensor", 5) == [[5, {"k": 1}], [5, None]]
    assert engine.fire("sensor", -5) == [[-5, {"k": 1}], None]
    assert engine.bindings("other") == []


def test_time_passes_only_by_hand(engine):
    worker = engine.worker()
    begun, cancelled = threading.Event(), threading.Event()

    async def forever(_):
        import asyncio

        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    worker.register_function("m::forever", forever)
    errors = []

    def call():
        with pytest.raises(InvocationError) as caught:
            worker.trigger({"function_id": "m::forever", "timeout_ms": 3_600_000})
        errors.append(caught.value.code)

    calling = threading.Thread(target=call)
    calling.start()
    assert begun.wait(BOUND)
    engine.advance(3599)
    assert errors == []
    engine.advance(2)
    calling.join(BOUND)
    assert errors == ["TIMEOUT"]
    assert cancelled.wait(BOUND)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_a_projects_scripts_are_run_with_a_worker_of_the_engine(tmp_path):
    write(
        tmp_path,
        {
            "iii.toml": '[workers.a]\nrun = "src/a.py"\n[workers.node]\nrun = "node x.mjs"\n[workers.state]\n',
            "src/a.py": "import beside_a\nfrom iii import register_worker\n"
            "register_worker().register_function('a::name', lambda _: beside_a.NAME)\n",
            "src/beside_a.py": "NAME = 'ada'\n",
        },
    )
    path = list(sys.path)
    with project(tmp_path / "src") as engine:
        assert engine.call("a::name") == "ada"
        assert engine.call("state::set", scope="s", key="k", value=1)["new_value"] == 1
        assert ", 2 workers," in repr(engine)
    assert "beside_a" not in sys.modules
    assert sys.path == path


def test_a_folder_without_a_project_has_no_scripts(tmp_path):
    with project(tmp_path) as engine:
        assert ", 0 workers," in repr(engine)
