"""Group P, messages that make no sense: wrong fields, taken names, cycles, deadlines that are none."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from tests.support.caller import Outcome
from tests.support.scene import Scene
from tests.support.wire import call_line, wire

ECHO = """
@on("echo::echo")
def echo(payload):
    return payload
"""

INVOKE = '"type":"invokefunction","invocation_id":"i1"'
WRONG = {
    f'{{{INVOKE},"data":1}}': "function_id",
    f'{{{INVOKE},"function_id":5,"data":1}}': "function_id",
    f'{{{INVOKE},"function_id":"echo::echo","data":1,"deadline_ms":"soon"}}': "deadline_ms",
    f'{{{INVOKE},"function_id":"echo::echo","data":1,"namespace":[]}}': "namespace",
    '{"type":"invokfunction","invocation_id":"i1","function_id":"echo::echo"}': "invokfunction",
}


@pytest.mark.parametrize("line", WRONG)
def test_p21_a_wrong_field_is_named_and_the_stream_goes_on(line: str, scene: Scene) -> None:
    scene.play({"echo": ECHO})
    with wire(scene) as peer:
        peer.write(line.encode() + b"\n")
        error = peer.result("i1")["error"]
        assert error["code"] == "invalid_message"
        assert WRONG[line] in error["message"]
        peer.write(call_line("echo::echo", b"7"))
        assert peer.result("i1")["result"] == 7


def test_p21_fields_and_types_of_a_later_version_are_ignored(scene: Scene) -> None:
    # The wire has no version number: what a later one adds must be ignorable, and that is what is checked.
    scene.play({"echo": ECHO})
    with wire(scene) as peer:
        peer.send(type="invokefunction", invocation_id="i1", function_id="echo::echo", data=1, version=99, later={})
        assert peer.result("i1")["result"] == 1
        peer.send(type="somethingnew", fields=[1])
        peer.settle()


def test_p27_a_function_belongs_to_the_first_who_registers_it(scene: Scene) -> None:
    scene.play({})
    with wire(scene) as first, wire(scene) as second:
        first.send(type="registerfunction", id="shop::pay")
        first.settle()
        second.send(type="registerfunction", id="shop::pay")
        rejection = second.await_message("registrationrejected")
        assert (rejection["code"], rejection["function_id"]) == ("FUNCTION_NAMESPACE_CONFLICT", "shop::pay")
        first.send(type="registerfunction", id="shop::pay")  # one's own once more: nothing happens
        first.settle()
        call = scene.caller.begin("shop::pay", 3)
        taken = first.await_message("invokefunction", function_id="shop::pay")
        first.send(type="invocationresult", invocation_id=taken["invocation_id"], result="first")
        assert call.result(20).value == "first"


def test_p27_a_worker_has_ten_thousand_functions_at_most(scene: Scene) -> None:
    scene.play({})
    with wire(scene) as peer:
        lines = [f'{{"type":"registerfunction","id":"many::f{number}"}}\n' for number in range(10_001)]
        peer.write("".join(lines).encode())
        rejection = peer.await_message("registrationrejected")
        assert (rejection["reason"], rejection["function_id"]) == ("limit_exceeded", "many::f10000")


@pytest.mark.parametrize("name", ["a::b\nc", "a::../b", "a::\u202eb", "a::" + "x" * 10_240, "", "a b"])
def test_p27_a_name_that_would_mislead_is_refused(name: str, scene: Scene) -> None:
    scene.play({})
    with wire(scene) as peer:
        peer.send(type="registerfunction", id=name)
        assert peer.await_message("registrationrejected", function_id=name)["reason"] == "invalid_message"
    told = scene.await_line("function not registered")
    assert "\u202e" not in told
    assert len(told) < 1_000


def test_p28_of_an_unregistered_function_waiting_calls_fail_and_started_ones_finish(scene: Scene) -> None:
    leaver = """
    offer("leaver::work")
    call = take()
    while not os.path.exists("go"): time.sleep(0.01)
    send(type="unregisterfunction", id="leaver::work")
    answer(call, "finished")
    take()
    """
    scene.program("leaver", leaver, concurrency=1)
    scene.open()
    calls: list[Future[Outcome]] = [scene.caller.begin("leaver::work") for _ in range(3)]
    scene.ask("canary::sing")  # behind them on the same connection: they have arrived
    (scene.folder / "go").touch()
    assert calls[0].result(20).value == "finished"
    assert [call.result(20).code for call in calls[1:]] == ["function_not_found"] * 2


CYCLE = """
from iii import InvocationError
@on("{0}::call")
def call(path):
    if not path:
        return "end"
    try:
        return worker.trigger(path[0], path[1:])
    except InvocationError as error:
        return [error.code, str(error), (error.details or {{}}).get("chain")]
"""


@pytest.mark.parametrize("path", [["b::call", "a::call"], ["a::call"]], ids=["a-b-a", "self-call"])
def test_p29_a_call_that_waits_for_itself_is_told_so_with_the_chain(path: list[str], scene: Scene) -> None:
    limits = {"concurrency": 1}
    scene.play({"a": CYCLE.format("a"), "b": CYCLE.format("b")}, a=limits, b=limits)
    outcome = scene.ask("a::call", path)
    code, text, chain = outcome.value
    assert code == "deadlock_detected"
    assert chain[0] == "a::call" == chain[-1]
    assert " -> ".join(chain) in text
    assert outcome.seconds < 10  # not the 30 s of a deadline


def test_p29_a_chain_deeper_than_any_honest_one_is_cut(scene: Scene) -> None:
    deep = """
@on("deep::call")
async def call(depth):
    return await worker.trigger_async("deep::call", depth + 1)
"""
    scene.play({"deep": deep})
    outcome = scene.ask("deep::call", 1)
    assert outcome.code == "loop_detected"
    assert "nested deeper than 32" in outcome.error["message"]  # type: ignore[index]
    assert outcome.seconds < 10


@pytest.mark.parametrize("deadline", [0, -5, -0.5])
def test_p30_a_deadline_that_is_none_is_refused(deadline: float, scene: Scene) -> None:
    scene.play({"echo": ECHO})
    outcome = scene.ask("echo::echo", 1, deadline_ms=deadline)
    assert outcome.code == "invalid_message"
    assert "deadline_ms" in outcome.error["message"]  # type: ignore[index]


def test_p30_a_far_deadline_is_a_deadline_and_none_is_the_default(scene: Scene) -> None:
    scene.head = '[engine]\nlisten = "off"\ninvocation_timeout = "300ms"\n'
    scene.play({"slow": "@on('slow::sleep')\ndef sleep(seconds):\n    time.sleep(seconds)\n    return 'slept'"})
    far = scene.caller.begin("slow::sleep", 0.6, deadline_ms=10**12)
    absent = scene.caller.begin("slow::sleep", 0.6)
    assert absent.result(20).code == "TIMEOUT"
    assert far.result(20).value == "slept"


def test_p30_an_inner_call_has_no_more_time_than_the_outer_one(scene: Scene) -> None:
    outer = """
from iii import InvocationError
@on("outer::call")
def call(payload):
    began = time.monotonic()
    try:
        worker.trigger({"function_id": "inner::sleep", "payload": 5, "timeout_ms": 20000})
    except InvocationError as error:
        say("inner ended", error.code, time.monotonic() - began < 4)
"""
    inner = "@on('inner::sleep')\nasync def sleep(seconds):\n    import asyncio\n    await asyncio.sleep(seconds)"
    scene.play({"outer": outer, "inner": inner})
    assert scene.ask("outer::call", deadline_ms=400).code == "TIMEOUT"
    assert scene.said("outer", "inner ended") == "TIMEOUT True"


def test_p32_a_result_at_its_deadline_is_one_outcome(scene: Scene) -> None:
    race(scene, 2_000)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_p32_a_hundred_thousand_results_at_their_deadlines_are_one_outcome_each(scene: Scene) -> None:
    race(scene, 100_000)


def race(scene: Scene, times: int) -> None:
    """Let answers and deadlines meet; the scene's caller counts every second outcome as a stray."""
    racer = "import asyncio\n@on('racer::run')\nasync def run(seconds):\n    await asyncio.sleep(seconds)\n    return 1"
    scene.play({"racer": racer})
    outcomes: list[Outcome] = []
    for _ in range(times // 200):
        calls = [scene.caller.begin("racer::run", 0.02, deadline_ms=18 + number / 25) for number in range(200)]
        outcomes += [call.result(30) for call in calls]
    answered = sum(outcome.error is None for outcome in outcomes)
    timed_out = sum(outcome.error is not None and outcome.code == "TIMEOUT" for outcome in outcomes)
    assert answered + timed_out == len(outcomes) == times


LIAR = """
def ask(function_id, data):
    head = '{"type":"invokefunction","invocation_id":"lie","function_id":"%s","data":' % function_id
    os.write(1, head.encode() + data + b"}\\n")
    for line in iter(sys.stdin.buffer.readline, b""):
        message = json.loads(line)
        if message.get("invocation_id") == "lie": return message
offer("liar::lie", "liar::parrot")
send(type="ready", vouches=True)
while True:
    call = take()
    if call["function_id"] == "liar::lie":
        answer(call, ask(call["data"], b'["' + b"x" * 9000 + b'\\xff" "no comma"]'))
    else:
        head = '{"type":"invocationresult","invocation_id":"%s","result":[' % call["invocation_id"]
        os.write(1, head.encode() + b'"' + b"x" * 9000 + b'" "no comma"]}\\n')
"""

ECHO_AND_ASK = """
@on("echo::echo")
def echo(payload):
    return payload
@on("echo::ask")
def ask(payload):
    return len(worker.trigger(payload, None))
"""


def test_a_worker_that_vouches_for_what_is_no_json_fails_alone(scene: Scene) -> None:
    scene.program("liar", LIAR)
    scene.play({"echo": ECHO_AND_ASK})
    for target in ("echo::echo", "engine::functions::list"):
        told = scene.ask("liar::lie", target).value
        assert told["error"]["code"] == "invalid_json", told
    assert scene.ask("echo::ask", "liar::parrot").code == "invalid_json"
    assert scene.ask("echo::echo", 7).value == 7
    assert scene.ask("engine::functions::list", {}).value


def test_nobody_vouches_over_a_socket(scene: Scene) -> None:
    scene.play({"echo": ECHO_AND_ASK})
    with wire(scene) as peer:
        peer.send(type="ready", vouches=True)
        line = call_line("echo::echo", b'"' + b"x" * 9000 + b'\xff"')
        peer.write(line)
        error = peer.result("i1")["error"]
        assert (error["code"], error["details"]["offset"]) == ("invalid_json", line.index(b"\xff"))
