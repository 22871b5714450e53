"""`iii queue` and `iii cron` as real processes."""

from __future__ import annotations

import json

import pytest

from tests.support.command import Iii
from tests.support.fake_engine import FakeEngine, Refused

QUEUE = {
    **{"name": "emails", "kind": "queue", "type": "fifo", "function_id": None, "concurrency": 4, "paused": True},
    **{"ready": 1, "delayed": 2, "running": 3, "limited": 8, "filling": 9, "behind": 4, "held": 5, "dlq_depth": 6},
    "delivered": 7,
}
LETTER = {"id": "m1", "function_id": "mail::send", "failed_at": 0, "retries": 3, "error": "invocation_failed: no\nway"}
JOB = {
    **{"id": "m1", "function_id": "mail::send", "state": "ready", "attempt": 0, "priority": 2, "group": "a"},
    **{"waits_for": None, "due_at": 0, "payload": {"text": "x" * 100}},
}


def asked(engine: FakeEngine) -> dict[str, object]:
    """Return the last call that the command has made."""
    message = [message for message in engine.received if message["type"] == "invokefunction"][-1]
    return {"function_id": message["function_id"], **message["data"]}


def test_list_shows_one_row_a_queue(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["iii::queue::list"] = lambda _: {"queues": [QUEUE]}
    header, row = iii("queue", "list").stdout.splitlines()
    assert header.split()[:3] == ["QUEUE", "TYPE", "STATE"]
    assert row.split() == ["emails", "fifo", "paused", *"123894567", "4", "-"]
    assert json.loads(iii("queue", "list", "--json").stdout) == {"queues": [QUEUE]}


def test_list_names_the_command_that_deletes_an_orphaned_queue(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["iii::queue::list"] = lambda _: {"queues": [{**QUEUE, "name": "old mails", "orphaned": True}]}
    done = iii("queue", "list")
    assert done.stdout.splitlines()[1].split()[2:4] == ["fifo", "orphaned"]
    assert done.stderr == "note: old mails has left iii.toml; `iii queue delete 'old mails'` removes it with its jobs\n"
    engine.functions["iii::queue::delete"] = lambda data: {"queue": data["queue"], "deleted": 2}
    assert iii("queue", "delete", "old mails", "--yes").stdout == "old mails: deleted, with 2 jobs\n"
    assert iii("queue", "delete", "old mails").returncode == 130


def test_peek_cuts_long_payloads_and_pages(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["iii::queue::peek"] = lambda _: {"messages": [JOB]}
    row = iii("queue", "peek", "emails", "--limit", "3").stdout.splitlines()[1]
    assert row.endswith("x…")
    assert asked(engine) == {"function_id": "iii::queue::peek", "queue": "emails", "offset": 0, "limit": 3}


def test_dead_shows_queues_or_letters(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["engine::queue::dlq_topics"] = lambda _: [{"topic": "emails", "message_count": 2}]
    engine.functions["engine::queue::dlq_messages"] = lambda _: [LETTER]
    assert iii("queue", "dead").stdout.splitlines()[1].split() == ["emails", "2"]
    row = iii("queue", "dead", "emails").stdout.splitlines()[1]
    assert row.split() == ["m1", "mail::send", "1970-01-01", "00:00:00", "3", "invocation_failed:", "no"]


@pytest.mark.parametrize(
    ("words", "call", "answer", "shown"),
    [
        (
            ("redrive", "emails", "m1", "--data", '{"to":"b"}'),
            {"function_id": "iii::queue::redrive_message", "queue": "emails", "message_id": "m1", "data": {"to": "b"}},
            {"redriven": 1},
            "emails: 1 redriven",
        ),
        (
            ("redrive", "emails", "--all"),
            {"function_id": "iii::queue::redrive", "queue": "emails"},
            {"redriven": 6},
            "emails: 6 redriven",
        ),
        (
            ("discard", "emails", "m1"),
            {"function_id": "iii::queue::discard_message", "queue": "emails", "message_id": "m1"},
            {"redriven": 1},
            "emails: 1 discarded",
        ),
        (
            ("pause", "emails"),
            {"function_id": "iii::queue::pause", "queue": "emails"},
            {"paused": True, "changed": True},
            "emails: paused",
        ),
        (
            ("resume", "emails"),
            {"function_id": "iii::queue::resume", "queue": "emails"},
            {"paused": False, "changed": False},
            "emails: active already",
        ),
        (
            ("purge", "emails", "--yes"),
            {"function_id": "iii::queue::purge", "queue": "emails"},
            {"purged": 9},
            "emails: 9 purged",
        ),
    ],
)
def test_moves_say_what_has_happened(
    engine: FakeEngine,
    iii: Iii,
    *,
    words: tuple[str, ...],
    call: dict[str, object],
    answer: dict[str, object],
    shown: str,
) -> None:
    engine.functions[str(call["function_id"])] = lambda _: {"queue": "emails", **answer}
    assert iii("queue", *words).stdout.strip() == shown
    assert asked(engine) == call


def test_cancel_fails_for_a_job_that_runs(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["iii::queue::cancel"] = lambda _: {"canceled": False, "state": "running"}
    done = iii("queue", "cancel", "m1")
    assert (done.returncode, done.stdout.strip()) == (1, "m1: not canceled, it is running")
    engine.functions["iii::queue::cancel"] = lambda _: {"canceled": True, "state": "ready"}
    assert iii("queue", "cancel", "m1").stdout.strip() == "m1: canceled"


def test_purge_asks_first(engine: FakeEngine, iii: Iii) -> None:
    assert iii("queue", "purge", "emails", stdin="n\n").returncode == 130
    assert not [message for message in engine.received if message["type"] == "invokefunction"]


def test_a_missing_message_exits_1(engine: FakeEngine, iii: Iii) -> None:
    def refuse(_: object) -> None:
        raise Refused("message_not_found", "there is no such message: m9")

    engine.functions["iii::queue::redrive_message"] = refuse
    done = iii("queue", "redrive", "emails", "m9")
    assert (done.returncode, "m9" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    "words", [("redrive", "q"), ("redrive", "q", "m", "--all"), ("redrive", "q", "m", "--data", "{")]
)
def test_an_ambiguous_redrive_is_a_usage_error(iii: Iii, words: tuple[str, ...]) -> None:
    assert iii("queue", *words).returncode == 2


def test_cron_next_needs_no_engine(iii: Iii) -> None:
    lines = iii("cron", "next", "0 0 1 1 *", "--count", "2", "--timezone", "Europe/Berlin").stdout.splitlines()
    assert [line.split()[1][4:] for line in lines] == ["-01-01", "-01-01"]
    assert lines[0].endswith("00:00:00 CET")
    assert len(json.loads(iii("cron", "next", "@hourly", "--json").stdout)["next"]) == 5
    assert iii("cron", "next", "0 0 30 2 *").stdout.strip() == "never"


def test_cron_next_explains_what_is_wrong(iii: Iii) -> None:
    done = iii("cron", "next", "0 0 0 * * 0")
    assert (done.returncode, "1 = Sunday" in done.stderr) == (2, True)


SCHEDULE = {
    **{"id": "often", "function_id": "mail::send", "expression": None, "at": None, "every_ms": 500},
    **{"next": "2026-01-01T00:00:00+00:00", "running": False},
}


def test_cron_shows_makes_and_removes_schedules(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["cron::schedules"] = lambda _: {"schedules": [SCHEDULE], "after": "often"}
    lines = iii("cron", "list", "--prefix", "o", "--limit", "1").stdout.splitlines()
    assert lines[1].split()[:5] == ["often", "mail::send", "every", "500", "ms"]
    assert lines[2] == "more: --after often"
    assert asked(engine) == {"function_id": "cron::schedules", "prefix": "o", "limit": 1}
    engine.functions["cron::schedule"] = lambda data: {"id": data["id"], "next": "soon", "changed": True}
    done = iii("cron", "schedule", "often", "mail::send", "--every-ms", "500", "--payload", '{"a": 1}', "-z", "UTC")
    assert done.stdout == "often: next soon\n"
    given = {"id": "often", "function_id": "mail::send", "every_ms": 500, "time_zone": "UTC", "payload": {"a": 1}}
    sent = [message for message in engine.received if message.get("function_id") == "cron::schedule"][-1]
    assert sent["data"] == given
    engine.functions["cron::unschedule"] = lambda data: {"id": data["id"], "removed": data["id"] == "often"}
    assert iii("cron", "remove", "often").stdout == "often: removed\n"
    assert iii("cron", "remove", "other").returncode == 1
