"""A task that the engine cannot do without takes the engine with it; any other mistake is only logged."""

from __future__ import annotations

import asyncio
import logging

import pytest

from iii.engine.supervision.critical_tasks import EXIT_CRASHED, end_with_critical_tasks, start_critical


async def fail() -> None:
    raise LookupError("no such instance")


async def wait() -> None:
    await asyncio.Event().wait()


def history(scenario: str, caplog: pytest.LogCaptureFixture) -> list[object]:
    """Run one scenario; return what was done about it, in order."""
    done: list[object] = []

    async def main() -> None:
        end_with_critical_tasks(lambda: done.append("last"), done.append)
        if scenario == "critical":
            await asyncio.wait({start_critical(fail(), "the watcher")})
        elif scenario == "cancelled":
            task = start_critical(wait(), "the watcher")
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
        else:
            asyncio.get_running_loop().call_soon(int, "no number")
        await asyncio.sleep(0)

    with caplog.at_level(logging.ERROR, logger="asyncio"):
        asyncio.run(main())
    return done


def test_a_failed_critical_task_is_named_logged_and_fatal(caplog: pytest.LogCaptureFixture) -> None:
    assert history("critical", caplog) == ["last", EXIT_CRASHED]
    assert "the engine has lost the watcher" in caplog.text
    assert "no such instance" in caplog.text


def test_cancelling_a_critical_task_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    assert history("cancelled", caplog) == []
    assert caplog.text == ""


def test_a_mistake_elsewhere_is_logged_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    assert history("callback", caplog) == []
    assert "ValueError" in caplog.text
