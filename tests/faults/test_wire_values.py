"""Group P, values on the wire: where lines are cut, how large they may be, and what JSON may hold."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.ground import eventually
from tests.support.scene import Scene
from tests.support.wire import Wire, call_line, wire

MIB = 1024 * 1024
LIMIT = 16 * MIB

ECHO = """
@on("echo::echo")
def echo(payload):
    return payload
@on("echo::size")
def size(payload):
    return len(payload)
"""

PARROT = """
offer("parrot::say")
while True:
    call = take()
    with open(call["data"], "rb") as file:
        said = file.read()
    os.write(1, said.replace(b"THE-ID", call["invocation_id"].encode()))
"""


def asked(peer: Wire, function_id: str, data: bytes) -> dict[str, object]:
    """Call with these bytes as payload; return the outcome, having checked that the stream is in step."""
    peer.write(call_line(function_id, data))
    outcome = peer.result("i1")
    peer.settle()
    return outcome


def code_of(outcome: dict[str, object]) -> object:
    error = outcome.get("error")
    return error["code"] if isinstance(error, dict) else f"answered {str(outcome.get('result'))[:80]}"


def offset_of(outcome: dict[str, object]) -> int:
    error = outcome["error"]
    assert isinstance(error, dict)
    return int(error["details"]["offset"])


def test_p09_a_frame_cut_anywhere_and_many_in_one_write_are_the_same_events(scene: Scene) -> None:
    scene.play({"echo": ECHO})
    line = call_line("echo::echo", b'{"text":"\xc3\xa9\xe2\x82\xac"}')
    with wire(scene) as peer, wire(scene) as other:
        for cut in range(1, len(line)):
            peer.write(line[:cut])
            other.settle()  # the engine has had a turn: it holds a part of a line now
            peer.write(line[cut:])
            assert peer.result("i1")["result"] == {"text": "é€"}
        peer.write(b"".join(call_line("echo::echo", str(n).encode(), f"n{n}") for n in range(500)))
        assert sorted(peer.await_message("invocationresult")["result"] for _ in range(500)) == list(range(500))


def test_p10_a_line_of_sixteen_mebibytes_is_the_last_that_passes(scene: Scene) -> None:
    scene.play({"echo": ECHO})
    with wire(scene) as peer:
        for size, code in ((LIMIT - 1, None), (LIMIT, None), (LIMIT + 1, "payload_too_large")):
            empty = len(call_line("echo::size", b'""')) - 1
            outcome = asked(peer, "echo::size", b'"' + b"x" * (size - empty) + b'"')
            assert outcome.get("result") == (None if code else size - empty)
            assert code is None or code_of(outcome) == code
        assert asked(peer, "echo::echo", b"7")["result"] == 7


def test_p10_a_result_over_the_limit_is_the_error_of_the_right_caller(scene: Scene) -> None:
    head = b'{"type":"invocationresult","invocation_id":"THE-ID","result":"'
    (scene.folder / "large").write_bytes(head + b"x" * LIMIT + b'"}\n')
    (scene.folder / "small").write_bytes(head + b'next"}\n')
    scene.program("parrot", PARROT)
    scene.play({"echo": ECHO})
    large, small = scene.caller.begin("parrot::say", "large"), scene.caller.begin("parrot::say", "small")
    assert large.result(30).code == "payload_too_large"
    assert small.result(30).value == "next"


def test_p11_a_line_without_end_costs_the_worker_and_no_memory(scene: Scene) -> None:
    endless = """
    offer("endless::write")
    take()
    while True:
        os.write(1, b"x" * 65536)
    """
    scene.program("endless", endless)
    scene.open()
    before = scene.memory()
    outcome = scene.ask("endless::write")
    assert outcome.code == "invocation_stopped"
    assert "over the limit" in outcome.details["words"]
    assert scene.memory() - before < 48 * MIB
    eventually(lambda: scene.row("endless")["restarts"] == 1 and scene.pid("endless"))


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 131_073])
def test_p12_lines_around_the_limit_of_other_readers_are_normal(size: int, scene: Scene) -> None:
    scene.play({"echo": ECHO})
    text = "x" * (size - len(call_line("echo::echo", b'""')))
    assert scene.ask("echo::echo", text).value == text


def test_p13_bytes_that_are_no_utf8_are_refused_with_their_offset(scene: Scene) -> None:
    scene.program("parrot", PARROT)
    scene.play({"echo": ECHO})
    result = '{"type":"invocationresult","invocation_id":"THE-ID","result":1}'
    (scene.folder / "invalid").write_bytes(result.replace("1}", '"X"}').encode().replace(b"X", b"\xff\xfe") + b"\n")
    (scene.folder / "bom").write_bytes(b"\xef\xbb\xbf" + result.encode() + b"\n")
    (scene.folder / "wide").write_bytes(result.encode("utf-16-le") + b"\n" + result.encode() + b"\n")
    assert scene.ask("parrot::say", "invalid").code == "invalid_json"
    assert scene.ask("parrot::say", "bom").code == "invalid_json"
    assert scene.ask("parrot::say", "wide").value == 1  # no id can be read in UTF-16: that line is lost alone
    with wire(scene) as peer:
        line = call_line("echo::echo", b'"ab\xffc"')
        peer.write(line)
        assert offset_of(peer.result("i1")) == line.index(b"\xff")
        assert asked(peer, "echo::echo", b"7")["result"] == 7


ASKER = """
@on("asker::ask")
def ask(payload):
    return worker.trigger("parrot::say", payload)
@on("asker::ask_async")
async def ask_async(payload):
    return await worker.trigger_async("parrot::say", payload)
"""


@pytest.mark.parametrize("function_id", ["asker::ask", "asker::ask_async"])
def test_p16_a_result_that_only_the_callers_sdk_refuses_is_an_error_of_its_call(function_id: str, scene: Scene) -> None:
    scene.program("parrot", PARROT)
    scene.play({"asker": ASKER})
    result = '{"type":"invocationresult","invocation_id":"THE-ID","result":%s}\n'
    (scene.folder / "beyond").write_text(result % 2**64)
    (scene.folder / "exact").write_text(result % (2**63 - 1))
    assert scene.ask(function_id, "beyond").code == "invalid_json"
    assert scene.ask(function_id, "exact").value == 2**63 - 1


SURROGATES = [rb'"\ud800"', rb'"\udfff\ud800"', rb'{"\ud800":1}', rb'["ok","\ud83d"]']


@pytest.mark.parametrize("payload", SURROGATES, ids=lambda payload: payload.decode())
def test_p14_a_lone_surrogate_is_refused_and_harms_nobody(payload: bytes, scene: Scene) -> None:
    scene.program("parrot", PARROT)
    scene.play({"echo": ECHO})
    result = b'{"type":"invocationresult","invocation_id":"THE-ID","result":' + payload + b"}\n"
    (scene.folder / "surrogate").write_bytes(result)
    assert scene.ask("parrot::say", "surrogate").code == "invalid_json"
    with wire(scene) as peer:
        assert code_of(asked(peer, "echo::echo", payload)) == "invalid_json"
        assert asked(peer, "echo::echo", b'"\\ud83d\\ude00"')["result"] == "\U0001f600"


def test_p15_numbers_that_json_does_not_have_are_refused_in_both_directions(scene: Scene) -> None:
    returning = """
    @on("made::nan")
    def nan(payload):
        return {"a": [1, 2, 3, float(payload)]}
    """
    scene.play({"echo": ECHO, "made": returning.replace("\n    ", "\n")})
    with wire(scene) as peer:
        for bad in (b"NaN", b"Infinity", b"-Infinity", b"1e400", b"[1e400]", b'{"a":-1e999}'):
            assert code_of(asked(peer, "echo::echo", bad)) == "invalid_json", bad
        assert str(asked(peer, "echo::echo", b"-0.0")["result"]) == "-0.0"
    for bad in ("nan", "inf", "-inf"):
        outcome = scene.ask("made::nan", bad)
        assert outcome.code == "result_not_serializable"
        assert "$.a[3]" in str(outcome.error)


def test_p16_integers_are_exact_to_64_bits_and_refused_beyond(scene: Scene) -> None:
    # protocol.md A1 draws the line at 64 bits, so that 2^63 to 2^64-1 pass as they are; beyond nothing does.
    scene.play({"echo": ECHO})
    with wire(scene) as peer:
        for number in (2**53 - 1, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1):
            assert asked(peer, "echo::echo", str(number).encode())["result"] == number
        for digits in (str(2**64), str(-(2**63) - 1), "9" * 4_301):
            line = call_line("echo::echo", f"[1,{digits}]".encode())
            peer.write(line)
            outcome = peer.result("i1")
            assert code_of(outcome) == "invalid_json"
            assert offset_of(outcome) >= line.index(b"[1,")
        assert asked(peer, "echo::echo", b"7")["result"] == 7


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["arrays", "objects"])
def test_p17_sixty_four_levels_pass_and_more_are_refused(opening: bytes, closing: bytes, scene: Scene) -> None:
    scene.play({"echo": ECHO})
    with wire(scene) as peer:

        def nested(depth: int) -> dict[str, object]:
            return asked(peer, "echo::echo", opening * (depth - 1) + b"[]" + closing * (depth - 1))

        assert "error" not in nested(64)
        began = time.monotonic()
        assert code_of(nested(65)) == "invalid_json"
        assert code_of(nested(100_000)) == "invalid_json"
        assert time.monotonic() - began < 5  # far from the minutes that a naive check takes


def test_p18_two_hundred_thousand_values_pass_and_one_more_is_refused(scene: Scene) -> None:
    scene.play({"echo": ECHO})
    with wire(scene) as peer:
        values = b",".join([b"{}"] * 199_999)  # and the array itself
        assert len(asked(peer, "echo::echo", b"[" + values + b"]")["result"]) == 199_999  # type: ignore[arg-type]
        assert code_of(asked(peer, "echo::echo", b"[" + values + b",{}]")) == "invalid_json"
        assert asked(peer, "echo::echo", b"7")["result"] == 7


TWINS = [
    b'{"type":"ping","type":"invokefunction","invocation_id":"i1","function_id":"echo::echo","data":1}',
    b'{"type":"invokefunction","invocation_id":"i1","invocation_id":"i2","function_id":"echo::echo","data":1}',
    rb'{"type":"invokefunction","invocation_id":"i1","function_id":"echo::echo","data":1,"d\u0061ta":2}',
    rb'{"type":"invokefunction","invocation_id":"i1","function_id":"echo::echo","data":{"a":1,"\u0061":2}}',
    b'{"type":"invokefunction","invocation_id":"i1","function_id":"echo::echo","data":[{"a":1,"a":1}]}',
]


@pytest.mark.parametrize("line", TWINS, ids=lambda line: line.decode())
def test_p19_a_key_that_stands_twice_is_refused_however_it_is_spelled(line: bytes, scene: Scene) -> None:
    scene.play({"echo": ECHO})
    with wire(scene) as peer:
        peer.write(line + b"\n")
        outcome = peer.result("i1")
        # Two types contradict each other before anybody looks for keys that stand twice.
        expected = "invalid_message" if line.count(b'"type"') == 2 else "invalid_json"
        assert code_of(outcome) == expected
        assert expected == "invalid_message" or "duplicate key" in json.dumps(outcome)
        assert asked(peer, "echo::echo", b"7")["result"] == 7
