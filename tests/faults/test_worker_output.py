"""Group P, what a worker writes: output that is no message, answers that nobody asked for, ends that it closes."""

from __future__ import annotations

import json
from uuid import uuid4

from tests.support.ground import eventually
from tests.support.scene import Scene

MIB = 1024 * 1024

TALKER = """
import ctypes
@on("talker::talk")
def talk(payload):
    print("from print")
    ctypes.CDLL(None).puts(b"from C")
    ctypes.CDLL(None).fflush(None)
    os.system("echo from a child")
    return {"heard": payload}
"""

BABBLER = """
print("hello", flush=True)
print('{"a": 1}', flush=True)
offer("babbler::echo")
while True:
    call = take()
    print("no frame:", call["data"], flush=True)
    print('{"a": 1}', flush=True)
    answer(call, call["data"])
"""

MIRROR = """
offer("mirror::print")
while True:
    call = take()
    print(call["data"], flush=True)
    answer(call, "printed")
"""

LIAR = """
offer("liar::lie", "liar::twice", "liar::late")
while True:
    call = take()
    kind = call["function_id"]
    if kind == "liar::lie":
        answer({"invocation_id": call["data"]}, "forged")
        answer({"invocation_id": "nobody"}, "forged")
    if kind == "liar::late":
        while not os.path.exists("late"): time.sleep(0.01)
    answer(call, "first")
    if kind == "liar::twice":
        answer(call, "second")
"""

KEEPER = """
offer("keeper::keep")
call = take()
while not os.path.exists("go"): time.sleep(0.01)
answer(call, "kept")
take()
"""


def test_p01_what_an_sdk_worker_prints_is_its_log_and_the_call_succeeds(scene: Scene) -> None:
    scene.play({"talker": TALKER})
    assert scene.ask("talker::talk", 7).value == {"heard": 7}
    for text in ("from print", "from C", "from a child"):
        scene.await_log("talker", text)


def test_p01_what_a_worker_says_before_it_is_ready_is_shown_before(scene: Scene) -> None:
    names = [f"w{number}" for number in range(6)]
    scene.play(dict.fromkeys(names, "say('starting')\n"))
    for name in names:
        mine = [event["kind"] for event in scene.events if event.get("worker") == name]
        assert mine[:2] == ["LogLine", "Became"], name


def test_p02_output_of_a_raw_worker_is_logged_with_one_warning_and_the_stream_goes_on(scene: Scene) -> None:
    scene.program("babbler", BABBLER)
    scene.open()
    assert [scene.ask("babbler::echo", number).value for number in range(3)] == [0, 1, 2]
    scene.await_log("babbler", "no frame: 2")
    assert scene.await_log("babbler", "hello")["stream"] == "stdout"
    warnings = [line["text"] for line in scene.log("babbler") if line["stream"] == "engine"]
    assert warnings == ["this worker speaks the protocol on stdout: let it print to stderr"]


def test_p03_json_that_is_no_message_never_costs_the_worker(scene: Scene) -> None:
    scene.program("babbler", BABBLER)
    scene.open()
    pid = scene.pid("babbler")
    assert [scene.ask("babbler::echo", number).value for number in range(3)] == [0, 1, 2]
    scene.await_log("babbler", '{"a": 1}')
    assert scene.pid("babbler") == pid


def test_p04_text_of_a_payload_that_looks_like_a_result_answers_nobody(scene: Scene) -> None:
    echo = "on('echo::print')(lambda payload: print(payload) or payload)"
    scene.program("mirror", MIRROR)
    scene.program("keeper", KEEPER)
    scene.play({"echo": echo})
    waiting = scene.caller.begin("keeper::keep")
    forged = json.dumps({"type": "invocationresult", "invocation_id": str(uuid4()), "result": "forged"})
    text = f"\n{forged}\n"
    assert scene.ask("echo::print", text).value == text
    assert scene.counter("unknown_result") == 0  # what an SDK worker prints is never a message
    assert scene.ask("mirror::print", text).value == "printed"
    assert scene.counter("unknown_result") == 1
    (scene.folder / "go").touch()
    assert waiting.result(20).value == "kept"


def test_p05_results_for_ids_that_are_not_the_workers_are_dropped_and_counted(scene: Scene) -> None:
    # The engine keeps no list of finished ids, so finished and never seen are one cause of the four.
    scene.program("liar", LIAR)
    scene.program("keeper", KEEPER)
    scene.open()
    with scene.connection() as caller:
        kept = str(uuid4())
        caller.send({"type": "invokefunction", "invocation_id": kept, "function_id": "keeper::keep", "data": None})
        caller.settle()
        assert scene.ask("liar::lie", kept).value == "first"
        (scene.folder / "go").touch()
        assert caller.await_message("invocationresult", 20, kept)["result"] == "kept"
    before = scene.counter("unawaited_result")  # a worker says who it is in a call that nobody waits for
    assert scene.ask("liar::late", deadline_ms=50).code == "TIMEOUT"
    (scene.folder / "late").touch()
    eventually(lambda: scene.counter("unawaited_result") == before + 1)
    assert scene.counter("foreign_result") == 1
    assert scene.counter("unknown_result") == 1
    assert scene.ask("liar::twice").value == "first"
    eventually(lambda: scene.counter("unknown_result") == 2)


def test_p06_of_two_results_the_first_wins_and_the_second_is_counted(scene: Scene) -> None:
    scene.program("liar", LIAR)
    scene.open()
    assert [scene.ask("liar::twice").value for _ in range(20)] == ["first"] * 20
    eventually(lambda: scene.counter("unknown_result") == 20)


def test_p08_a_partial_line_of_a_dying_worker_is_discarded(scene: Scene) -> None:
    dying = """
    offer("dying::die")
    call = take()
    message = {"type": "invocationresult", "invocation_id": call["invocation_id"], "result": 1}
    os.write(1, json.dumps(message).encode())
    os._exit(3)
    """
    scene.program("dying", dying)
    scene.open()
    outcome = scene.ask("dying::die")
    assert (outcome.code, outcome.details["reason"], outcome.details["exit_code"]) == (
        "invocation_stopped",
        "worker_exited",
        3,
    )
    line = scene.await_log("dying", "truncated")
    assert line["text"] == f"truncated {len(outcome_line())} bytes at exit"


def outcome_line() -> str:
    """As long as the line that the dying worker did not end."""
    return json.dumps({"type": "invocationresult", "invocation_id": str(uuid4()), "result": 1})


def test_p20_only_newlines_end_a_line(scene: Scene) -> None:
    text = "a\u2028b\u2029c\x0cd\x1ce\r\nf\x85g"
    plain = r"""
    os.write(1, b'\r\n \n\n{"type":"registerfunction","id":"plain::raw"}\r\n')
    while True:
        call = take()
        head = '\n  {"type":"invocationresult", "invocation_id":"' + call["invocation_id"] + '",\t"result": '
        os.write(1, (head + json.dumps(call["data"], ensure_ascii=False) + ' } \r\n').encode())
    """
    scene.program("plain", plain)
    scene.open()
    assert scene.ask("plain::raw", text).value == text


def test_p24_a_flood_of_stderr_neither_blocks_the_worker_nor_fills_the_disk(scene: Scene) -> None:
    flood = """
@on("flood::flood")
def flood(seconds):
    line, count, end = b"x" * 1023 + b"\\n", 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(64):
            os.write(2, line)
        count += 64
    return count
"""
    scene.play({"flood": flood})
    written = scene.ask("flood::flood", 2.0).value

    def counts() -> tuple[int, int]:
        texts = [line["text"] for line in scene.log("flood")]
        notes = [text for text in texts if text.endswith("lines suppressed (over 1 MiB a second)")]
        return sum(text.startswith("xxx") for text in texts), sum(int(note.split()[0]) for note in notes)

    eventually(lambda: sum(counts()) == written)
    assert counts()[1] > 0
    assert sum(file.stat().st_size for file in (scene.folder / ".iii/logs").glob("flood.log*")) < 6 * MIB
    assert scene.ask("flood::flood", 0).value == 0


def test_p25_a_worker_that_closes_its_stdin_or_stdout_is_replaced(scene: Scene) -> None:
    closer = """
    offer("closer{end}::call")
    if not os.path.exists("closed{end}"):
        call = take()
        os.close({end})
        open("closed{end}", "w").close()
        time.sleep(600)
    while True:
        answer(take(), os.getpid())
    """
    for end in (0, 1):
        scene.program(f"closer{end}", closer.replace("{end}", str(end)))
    scene.open()
    for end in (0, 1):
        pid = scene.pid(f"closer{end}")
        started = scene.caller.begin(f"closer{end}::call")
        eventually((scene.folder / f"closed{end}").exists)
        unwritten = scene.caller.begin(f"closer{end}::call")
        outcome = started.result(30)
        assert outcome.code == "invocation_stopped"
        assert "closed its stdin or stdout" in outcome.details["words"]
        assert unwritten.result(30).value not in (pid, None)  # it was never read: it runs elsewhere
        assert scene.ask(f"closer{end}::call").value not in (pid, None)


def test_p31_a_void_call_that_reaches_nobody_is_logged_and_counted(scene: Scene) -> None:
    gone = 'offer("gone::call")\ntake()\nos._exit(3)\n'
    scene.program("gone", gone, restart="never")
    scene.open()
    assert scene.ask("gone::call").code == "invocation_stopped"
    with scene.connection() as caller:
        for function_id in ("nobody::has", "gone::call"):
            caller.send({"type": "invokefunction", "function_id": function_id, "data": None})
            await_drop(scene, function_id)
    assert scene.counter("void_dropped") == 2


def await_drop(scene: Scene, function_id: str) -> None:
    """Wait until the engine has told that a call was dropped."""
    eventually(lambda: any(event["function_id"] == function_id for event in scene.seen("CallFailed")))
