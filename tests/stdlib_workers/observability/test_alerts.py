"""Alerts: conditions, cooldown, state past a restart, and the three actions with the guard around webhooks."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stdlib_workers.observability.actions import RETRY_INTERVALS, ActionRunner, warnings_about
from stdlib_workers.observability.alerts import MAX_ACTIONS, AlertEvaluator
from stdlib_workers.observability.config.alert_rules import AlertAction, AlertRule, AlertState, judge, rule_from
from stdlib_workers.observability.records.call_stats import CallStats
from stdlib_workers.values import OptionError
from tests.support.observed import MS, NOW, Bench, bench, keep, metric, metrics_request
from tests.support.stand_ins import Callee

RULE = AlertRule("busy", "iii.invocations.total", 5)
MS_NOW = NOW // MS


@pytest.mark.parametrize(
    ("operator", "held"),
    [
        ("greaterthan", [False, False, True]),
        ("greaterthanorequal", [False, True, True]),
        ("lessthan", [True, False, False]),
        ("lessthanorequal", [True, True, False]),
        ("equal", [False, True, False]),
        ("notequal", [True, False, True]),
    ],
)
def test_operators(operator: str, held: list[bool]) -> None:
    rule = RULE._replace(operator=operator)
    assert [judge(rule, AlertState(), value, 0)[0].firing for value in (4, 5, 6)] == held


def test_an_alert_fires_again_only_after_its_cooldown() -> None:
    state, due = AlertState(), []
    for second, value in ((0, 9), (30, 9), (59.999, 9), (60, 9), (61, 1), (70, 9), (120, 9)):
        state, is_due = judge(RULE, state, value, int(second * 1000))
        due.append(is_due)
    assert due == [True, False, False, True, False, False, True]


def test_without_data_or_when_off_nothing_changes() -> None:
    state = AlertState(True, 1, 1, 9)
    assert judge(RULE, state, None, 99) == (state, False)
    assert judge(RULE._replace(enabled=False), state, 9, 99) == (state, False)


def test_it_stops_firing_when_the_condition_no_longer_holds() -> None:
    state, _ = judge(RULE, AlertState(True, 1, 1, 9), 2, 99)
    assert state == AlertState(False, 99, 1, 2)


@given(st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 10)), max_size=30))
def test_two_firings_are_never_closer_than_the_cooldown(steps: list[tuple[int, int]]) -> None:
    state, now, fired = AlertState(), 0, []
    for wait, value in steps:
        now += wait
        state, is_due = judge(RULE, state, value, now)
        assert is_due <= state.firing
        fired += [now] if is_due else []
    assert all(later - earlier >= 60_000 for earlier, later in pairwise(fired))


def test_a_rule_of_the_configuration() -> None:
    fields = {"name": "n", "metric": "m", "threshold": 1.5}
    assert rule_from(fields) == AlertRule("n", "m", 1.5)
    full = {
        **fields,
        "operator": "<=",
        "window_seconds": 5,
        "cooldown_seconds": 0,
        "enabled": False,
        "action": {"type": "webhook", "url": "https://example.com/x"},
    }
    assert rule_from(full) == AlertRule(
        "n", "m", 1.5, "lessthanorequal", 5, 0, False, AlertAction("webhook", "https://example.com/x")
    )
    assert rule_from(full).to_json() == {**full, "operator": "lessthanorequal"}
    function = rule_from({**fields, "operator": "GreaterThan", "action": {"type": "function", "path": "a::b"}})
    assert function.action.to_json() == {"type": "function", "path": "a::b"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"cooldown_seconds": "1"},
        {"metric": 5},
        {"threshold": "1"},
        {"threshold": True},
        {"operator": "~"},
        {"window_seconds": -1},
        {"enabled": "yes"},
        {"extra": 1},
        {"action": "log"},
        {"action": {"type": "mail"}},
        {"action": {"type": "webhook", "url": "ftp://x"}},
        {"action": {"type": "webhook", "url": "http://"}},
        {"action": {"type": "webhook", "url": 5}},
        {"action": {"type": "webhook", "url": "https://hooks.example/a b"}},
        {"action": {"type": "function", "path": "engine::workers::stop"}},
        {"action": {"type": "function", "path": "observability::ingest"}},
        {"action": {"type": "function"}},
    ],
)
def test_rules_that_do_not_fit(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="observability: "):
        rule_from({"name": "n", "metric": "m", "threshold": 1, **wrong})


class Acts:
    """Records what would be done."""

    def __init__(self) -> None:
        self.done: list[tuple[str, float, int]] = []

    async def act(self, rule: AlertRule, value: float, now: int) -> None:
        self.done.append((rule.name, value, now))


def evaluator(made: Bench, call_stats: CallStats, *rules: AlertRule) -> tuple[AlertEvaluator, Acts]:
    acts = Acts()

    async def make() -> AlertEvaluator:
        return AlertEvaluator(made.archive, call_stats, rules, acts.act)

    return made.run(make()), acts


def busy(total: int) -> CallStats:
    call_stats = CallStats()
    call_stats.take_counts({"total": total})
    return call_stats


def test_what_fired_and_the_list_of_alerts() -> None:
    with bench() as made:
        watching, acts = evaluator(made, busy(9), RULE, RULE._replace(name="quiet", threshold=100))
        events = made.run(watching.evaluate(NOW))
        made.run(asyncio.sleep(0))
        assert events == [
            {
                "name": "busy",
                "metric": "iii.invocations.total",
                "value": 9,
                "threshold": 5,
                "operator": "GreaterThan",
                "firing": True,
                "timestamp": MS_NOW,
            }
        ]
        assert acts.done == [("busy", 9, MS_NOW)]
        listed = watching.to_json(MS_NOW)
        assert listed["alerts"][0] == {
            "name": "busy",
            "firing": True,
            "last_evaluated": MS_NOW,
            "last_triggered": MS_NOW,
            "current_value": 9,
            "threshold": 5,
            "operator": "GreaterThan",
        }
        assert (listed["firing_count"], len(listed["rules"]), listed["timestamp"]) == (1, 2, MS_NOW)
        assert "message" not in listed


def test_the_state_survives_a_restart_and_the_cooldown_with_it(tmp_path: Path) -> None:
    for now, count in ((NOW, 1), (NOW + 30_000 * MS, 0), (NOW + 60_000 * MS, 1)):
        with bench(tmp_path / "o.db") as made:
            watching, _ = evaluator(made, busy(9), RULE)
            assert len(made.run(watching.evaluate(now))) == count
            assert watching.states["busy"].firing


def test_actions_that_never_end_are_bounded_and_the_log_says_what_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def never_end(*_: Any) -> None:
        await asyncio.Event().wait()

    rules = [RULE._replace(name=f"busy-{number}") for number in range(MAX_ACTIONS + 2)]
    with bench() as made:
        watching = AlertEvaluator(made.archive, busy(9), rules, never_end)
        assert len(made.run(watching.evaluate(NOW))) == MAX_ACTIONS + 2
    assert capsys.readouterr().err.count("its action is left out") == 2


class Enough(Exception):
    """Ends what would go on for ever."""


def test_rules_are_judged_every_ten_seconds_whatever_the_storage_says() -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            made.archive.close()
        if len(pauses) == 4:
            raise Enough

    with bench() as made:
        watching, _ = evaluator(made, busy(9), RULE._replace(cooldown_seconds=0), AlertRule("sdk", "m", 0))
        with pytest.raises(Enough):
            made.run(watching.run(lambda: NOW, sleep))
        assert watching.states["busy"].last_evaluated == MS_NOW
    assert pauses == [10.0] * 4


def test_without_rules_there_is_a_word_about_that() -> None:
    with bench() as made:
        watching, _ = evaluator(made, CallStats())
        assert made.run(watching.evaluate(NOW)) == []
        assert watching.to_json(5)["message"] == "no alerts are configured"


@pytest.mark.parametrize(
    ("kind", "value"), [("counter", 30.0), ("updowncounter", 30.0), ("gauge", 15.0), ("histogram", 6.0), (None, None)]
)
def test_sdk_metrics_in_the_window_gauges_averaged_all_others_summed(kind: str | None, value: float | None) -> None:
    with bench() as made:
        metrics = [metric("m", number, kind=kind) for number in (10, 20)] if kind else []
        if kind == "histogram":
            metrics = [{"name": "m", "histogram": {"dataPoints": [{"count": "2", "sum": 6.0}]}}]
        keep(made.archive, frames=[["MTRC", json.dumps(metrics_request(*metrics))]])
        keep(made.archive, frames=[["MTRC", json.dumps(metrics_request(metric("m", 999)))]], now=NOW - 61_000 * MS)
        watching, _ = evaluator(made, CallStats(), AlertRule("r", "m", 0))
        made.run(watching.evaluate(NOW))
        assert watching.states["r"].current_value == value


# Actions


async def no_pause(_: float) -> None:
    """Waiting is not what is tested."""


class Hook(BaseHTTPRequestHandler):
    """A webhook's receiver; answers with the statuses in turn, the last for ever."""

    statuses: list[int]
    bodies: list[Any]
    authorization: str | None

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).bodies.append((self.path, json.loads(body)))
        type(self).authorization = self.headers["authorization"]
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        self.send_response(status)
        self.send_header("location", "http://127.0.0.1:1/")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def hook() -> Iterator[tuple[type[Hook], str]]:
    kind = type("OneHook", (Hook,), {"statuses": [200], "bodies": []})
    server = HTTPServer(("127.0.0.1", 0), kind)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield kind, f"http://127.0.0.1:{server.server_address[1]}/hook?a=1"
    server.shutdown()
    server.server_close()
    thread.join()


def act(rule: AlertRule, callee: Callee | None = None, *, allow_private: bool = True, sleep: Any = no_pause) -> None:
    asyncio.run(ActionRunner(callee or Callee(), allow_private=allow_private, sleep=sleep).run(rule, 9, 77))


def test_a_webhook_gets_the_facts(hook: tuple[type[Hook], str]) -> None:
    receiver, url = hook
    act(RULE._replace(action=AlertAction("webhook", url)))
    facts = {"alert": "busy", "metric": RULE.metric, "value": 9, "threshold": 5, "operator": "GreaterThan"}
    assert receiver.bodies == [("/hook?a=1", {**facts, "timestamp": 77})]


def test_credentials_in_the_address_of_a_webhook_are_sent_as_basic_authentication(
    hook: tuple[type[Hook], str],
) -> None:
    receiver, url = hook
    act(RULE._replace(action=AlertAction("webhook", url.replace("//", "//me:s%40cret@"))))
    assert (receiver.bodies[0][0], receiver.authorization) == ("/hook?a=1", "Basic bWU6c0BjcmV0")


@pytest.mark.parametrize(("statuses", "tries"), [([500, 200], 2), ([500, 503, 204], 3), ([302], 3), ([500], 3)])
def test_a_webhook_is_tried_three_times_and_follows_no_redirect(
    hook: tuple[type[Hook], str], statuses: list[int], tries: int, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver, url = hook
    receiver.statuses[:] = statuses
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    act(RULE._replace(action=AlertAction("webhook", url)), sleep=sleep)
    assert len(receiver.bodies) == tries
    is_lost = statuses[-1] >= 300
    assert pauses == [1.0, 2.0, 4.0][: tries - (not is_lost)]
    assert ("failed 3 times" in capsys.readouterr().err) == is_lost


def test_a_webhook_that_nobody_answers_is_told_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        act(RULE._replace(action=AlertAction("webhook", f"http://127.0.0.1:{unused.getsockname()[1]}/secret-path")))
    said = capsys.readouterr().err
    assert "failed 3 times" in said
    assert "secret-path" not in said


def test_a_webhook_into_the_private_network_is_refused(hook: tuple[type[Hook], str], capsys: Any) -> None:
    receiver, url = hook
    act(RULE._replace(action=AlertAction("webhook", url)), allow_private=False)
    assert receiver.bodies == []
    assert "not on the public internet" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "localhost", "[::ffff:0:127.0.0.1]"])
def test_other_spellings_of_loopback_are_refused(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    act(RULE._replace(action=AlertAction("webhook", f"http://{host}:9/")), allow_private=False)
    assert "not on the public internet; set webhook_allow_private" in capsys.readouterr().err


def test_a_webhook_that_will_never_be_called_is_told_at_the_start() -> None:
    urls = ("http://127.0.0.1/x", "https://[fd00::1]/x", "https://hooks.example/x", "https://8.8.8.8/x")
    rules = [RULE, *(RULE._replace(name=url, action=AlertAction("webhook", url)) for url in urls)]
    told = warnings_about(rules, allow_private=False)
    assert [text.split()[5] for text in told] == list(urls[:2])
    assert all("webhook_allow_private = true" in text for text in told)
    assert warnings_about(rules, allow_private=True) == []


def test_a_function_is_called_without_waiting_in_the_default_namespace() -> None:
    callee = Callee(pager__ring=lambda _: None)
    act(RULE._replace(action=AlertAction("function", "pager::ring")), callee)
    (request,) = callee.requests
    assert request["payload"]["firing"] is True
    assert request["payload"]["alert"] == "busy"
    assert request["namespace"] == "default"
    assert request["action"] is not None


def test_a_function_that_is_not_there_is_told_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    act(RULE._replace(action=AlertAction("function", "pager::ring")))
    assert "pager::ring could not be called" in capsys.readouterr().err


def test_a_log_action_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    act(RULE)
    assert "alert busy: iii.invocations.total is 9, GreaterThan 5" in capsys.readouterr().err
    assert RETRY_INTERVALS == (1.0, 2.0, 4.0)


def test_a_rule_is_a_table() -> None:
    with pytest.raises(OptionError, match="table"):
        rule_from("busy")
