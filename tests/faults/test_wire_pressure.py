"""Group P, pressure: callers that give up, workers that do not read, writes that stop half way."""

from __future__ import annotations

import pytest

from tests.support.ground import eventually
from tests.support.scene import Scene

MIB = 1024 * 1024

ECHO = """
@on("echo::echo")
def echo(payload):
    return payload
@on("echo::make")
def make(size):
    return "x" * size
"""
# Cancels calls wherever they happen to be, and looks whether later ones get their own answers.
STORM = """
import asyncio, random

async def one(nonce, rng):
    call = asyncio.ensure_future(worker.trigger_async("echo::echo", nonce))
    for _ in range(rng.randrange(6)):
        await asyncio.sleep(0 if rng.random() < 0.5 else rng.random() / 500)
    if rng.random() < 0.5:
        call.cancel()
    try:
        return await call == nonce
    except asyncio.CancelledError:
        return None

@on("storm::rage")
async def rage(payload):
    rng, outcomes = random.Random(payload["seed"]), []
    for start in range(0, payload["times"], 50):
        outcomes += await asyncio.gather(*(one([payload["seed"], start, n], rng) for n in range(50)))
    return [outcomes.count(True), outcomes.count(False), outcomes.count(None)]
"""
DEAF = """
offer("deaf::hear")
time.sleep(600)
"""
# Writes fifty calls of a megabyte before it reads the first answer. More of them may be on their way than may wait for
# their callee (P22): those it asks again.
TORRENT = """
offer("torrent::pour")
call = take()
text = "x" * 1_000_000
def ask(number):
    send(type="invokefunction", invocation_id=f"t{number}", function_id="echo::echo", data=[number, text])
for number in range(50):
    ask(number)
sizes = {}
while len(sizes) < 50:
    message = json.loads(sys.stdin.buffer.readline())
    if message.get("error"):
        assert message["error"]["code"] == "overloaded", message
        ask(int(message["invocation_id"][1:]))
    elif message["type"] == "invocationresult":
        number, answered = message["result"]
        sizes[number] = len(answered)
answer(call, [len(sizes), sum(sizes.values())])
take()
"""
# The first of them reads a part of a call and leaves.
BITER = """
offer("biter::take")
if not os.path.exists("bitten"):
    while len(os.read(0, 100_000)) < 50_000: pass
    open("bitten", "w").close()
    os._exit(3)
while True:
    call = take()
    answer(call, len(call["data"]))
"""


def rage(scene: Scene, times: int) -> None:
    scene.play({"echo": ECHO, "storm": STORM})
    right, wrong, cancelled = scene.ask("storm::rage", {"seed": 1, "times": times}, deadline_ms=500_000).value
    assert (wrong, right + cancelled) == (0, times)
    assert right > times / 10
    assert cancelled > times / 10


def test_p07_after_cancelled_calls_the_others_get_their_own_answers(scene: Scene) -> None:
    rage(scene, 1_000)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_p07_after_ten_thousand_cancelled_calls_the_others_get_their_own_answers(scene: Scene) -> None:
    rage(scene, 20_000)


def test_p22_calls_to_a_worker_that_does_not_read_are_refused_at_eight_mebibytes(scene: Scene) -> None:
    scene.program("deaf", DEAF)
    scene.open()
    before = scene.memory()
    calls = [scene.caller.begin("deaf::hear", "x" * MIB, deadline_ms=1_500) for _ in range(100)]
    outcomes = [call.result(30) for call in calls]
    refused = [outcome for outcome in outcomes if outcome.code == "overloaded"]
    # A mebibyte fits into the pipe, eight may wait, and one call passes the bound.
    assert 88 <= len(refused) <= 92
    assert all(outcome.details["retry_after_ms"] > 0 for outcome in refused)
    assert {outcome.code for outcome in outcomes} == {"overloaded", "TIMEOUT"}
    assert scene.memory() - before < 48 * MIB


@pytest.mark.slow
def test_p22_a_worker_that_reads_nothing_is_killed_once_no_call_has_time_left(scene: Scene) -> None:
    scene.program("deaf", DEAF)
    scene.open()
    pid = scene.pid("deaf")
    outcome = scene.ask("deaf::hear", "x" * 4 * MIB, deadline_ms=15_000)
    assert outcome.code == "TIMEOUT"  # ten silent seconds were over before: it had time left, and lived
    eventually(lambda: scene.pid("deaf") not in (0, pid))
    assert "has read nothing of its input for 10 s" in scene.row("deaf")["last_exit"]


def test_p23_a_worker_that_writes_fifty_megabytes_before_it_reads_gets_everything(scene: Scene) -> None:
    scene.program("torrent", TORRENT)
    scene.play({"echo": ECHO})
    assert scene.ask("torrent::pour").value == [50, 50_000_000]


def test_p26_a_call_of_which_only_a_part_was_written_runs_on_the_next_instance(scene: Scene) -> None:
    scene.program("biter", BITER)
    scene.open()
    pid = scene.pid("biter")
    # Larger than the pipe: it cannot have been written whole.
    assert scene.ask("biter::take", "x" * 4 * MIB).value == 4 * MIB
    assert scene.pid("biter") != pid
