"""What one open page is told: bounded, whatever comes."""

from __future__ import annotations

import json

from stdlib_workers.console.live import ALWAYS, MAX_TRACES, MAX_WAITING, Page


def events(told: bytes) -> dict[str, object]:
    """Return the data of each event by its name."""
    blocks = [block.split("\n") for block in told.decode().split("\n\n") if block]
    return {name.removeprefix("event: "): json.loads(data.removeprefix("data: ")) for name, data in blocks}


async def test_what_came_is_told_once() -> None:
    page = Page(ALWAYS)
    page.changed |= {"workers", "functions"}
    page.traces.add("a" * 32)
    page.add_record(b'{"body":"hi"}')
    assert events(page.take()) == {
        "changed": ["functions", "workers"],
        "traces": ["a" * 32],
        "log": {"left_out": 0, "records": [{"body": "hi"}]},
    }
    assert page.take() == b""


async def test_log_records_that_no_page_takes_are_left_out_and_counted() -> None:
    page = Page(ALWAYS)
    record = json.dumps("x" * 10_000).encode()
    for _ in range(1000):
        page.add_record(record)
    told = page.take()
    assert len(told) < MAX_WAITING + 10_000
    log = events(told)["log"]
    assert isinstance(log, dict)
    assert log["left_out"] == 1000 - len(log["records"])
    assert log["left_out"] > 800


async def test_too_many_traces_are_told_as_any() -> None:
    page = Page(ALWAYS)
    page.traces |= {f"{number:032x}" for number in range(MAX_TRACES + 1)}
    assert events(page.take()) == {"traces": []}
