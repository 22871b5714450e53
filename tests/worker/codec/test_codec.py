"""The SDK's JSON is strict in both directions, with every library, and says where."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import uuid
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii.errors import LocalProtocolError, RemoteProtocolError
from iii.worker.codec.codec import Codec
from iii.worker.codec.json_diagnosis import find_fault
from iii.worker.codec.limits import MAX_DEPTH, MAX_NODES
from iii.worker.runtime.lines import LineReader
from tests.support.lines_run import lines_run

# A busy machine is slow; that decides no test.


def make_codec(package: str) -> Codec:
    codec = Codec()
    {"json": codec._use_json, "msgspec": codec._use_msgspec, "orjson": codec._use_orjson}[package]()
    assert codec.package == package
    return codec


@pytest.fixture(params=["json", "msgspec", "orjson"])
def codec(request):
    return make_codec(request.param)


def frame(data: bytes) -> bytes:
    return b'{"type":"invokefunction","invocation_id":"i-1","function_id":"f","data":' + data + b"}"


REFUSED = [
    b"NaN",
    b"-Infinity",
    b"1e400",
    b"-1e400",
    b"18446744073709551616",
    b"-9223372036854775809",
    b"[-9999999999999999999]",
    b'{"a":\t99999999999999999999}',
    b"9" * 4301,
    b'{"a":1,"a":2}',
    b'{"a":1,"\\u0061":2}',
    b'[{"b":{"c":1,"c":1}}]',
    b'{"a":1,"a":2,"b" :3}',
    b'{"a":1,"a":2,"b"\t:3}',
    b'{"a":1,"a":2,"b"\r:3}',
    b'{"a":1, "a":":","b":" :"}',
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\\ud83d \\n \\ude00"',
    b'"\\ud83d x\\n"',
    b'{"\\ud800":1}',
    b'"\xff"',
    b'"\t"',
    b"[" * 65 + b"]" * 65,
    b"[" * 100_000 + b"]" * 100_000,
    b"[1,]",
    b"01",
    b"tru",
    b"",
]


@pytest.mark.parametrize("data", REFUSED, ids=lambda data: repr(data[:20]))
def test_a_refused_line_yields_offset_and_id_and_the_next_one_is_read(codec, data):
    refused, kept = codec.decode_block(frame(data) + b"\n" + frame(b"1"))
    assert isinstance(refused, RemoteProtocolError)
    assert refused.code == "invalid_json"
    assert refused.invocation_id == "i-1"
    assert 0 <= refused.offset <= len(frame(data))
    assert kept["data"] == 1


ACCEPTED = [
    b"18446744073709551615",
    b"-9223372036854775808",
    b"9999999999999999999",
    b'["-9999999999999999999", "a -9223372036854775809", 0.00000000000000000000000001]',
    b"9007199254740993",
    b"-0.0",
    b"0.12345678901234567890123",
    b'"12345678901234567890123"',
    b'{"a" : 1, "b" :2}',
    b'{"a"\t: " :", "b":"a \\":"}',
    b'{"text":"a \\"quoted\\": one"}',
    b'"\\ud83d\\ude00"',
    b'"\xe2\x80\xa8 \x0c"'.replace(b"\x0c", b"\\f"),
    b"[" * 64 + b"]" * 64,
    b'{"a":{"a":{"a":[{"a":1},{"a":1}]}}}',
]


@pytest.mark.parametrize("data", ACCEPTED, ids=lambda data: repr(data[:20]))
def test_an_unusual_line_is_read_exactly(codec, data):
    (message,) = codec.decode_block(frame(data))
    assert message["data"] == json.loads(data)
    assert repr(message["data"]) == repr(json.loads(data))


def test_the_offset_is_the_byte_of_the_fault(codec):
    line = frame('{"é":NaN}'.encode())
    (refused,) = codec.decode_block(line)
    assert refused.offset == line.index(b"NaN")


@pytest.mark.parametrize("line", [b"[1]", b"5", b"null", b"\xef\xbb\xbf{}"])
def test_a_line_that_is_no_object_is_refused(codec, line):
    (refused,) = codec.decode_block(line)
    assert refused.code == "invalid_json"
    assert refused.invocation_id is None


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
TEXT = st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))


@given(VALUES)
@pytest.mark.parametrize("package", ["json", "msgspec", "orjson"])
def test_what_is_encoded_is_decoded_equal(package, value):
    codec = make_codec(package)
    line = codec.encode({"v": value})
    assert find_fault(line) is None
    assert codec.decode_block(line + b"\n") == [{"v": value}]


@given(TEXT | VALUES.map(lambda value: json.dumps(value).encode()))
def test_all_libraries_give_the_same_verdict_on_any_bytes(data):
    line = b'{"data":' + data.replace(b"\n", b" ") + b"}"
    verdict = find_fault(line) is None
    for package in ("json", "msgspec", "orjson"):
        (message,) = make_codec(package).decode_block(line)
        assert isinstance(message, dict) is verdict, package


class Shade(enum.Enum):
    DARK = "dark"


class Place(NamedTuple):
    name: str
    number: int


class Name(str):
    pass


@dataclasses.dataclass
class Item:
    name: str


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (Item("x"), {"name": "x"}),
        (Shade.DARK, "dark"),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.50"), "1.50"),
        ((1, 2), [1, 2]),
        ({1}, [1]),
        (b"hi", "aGk="),
        (Name("ada"), "ada"),
        ([Name("ada")], ["ada"]),
        (Place("a", 1), ["a", 1]),
    ],
)
def test_python_values_have_one_json_form_in_every_library(codec, value, wire):
    assert json.loads(codec.encode({"v": value})) == {"v": wire}


CIRCLE: list = []
CIRCLE.append(CIRCLE)
DEEP: list = []
for _ in range(70):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, 2, 3, float("nan")]}, "$.a[3]"),
        ([float("inf")], "$[0]"),
        ({"n": 2**64}, "$.n"),
        ({"n": -(2**63) - 1}, "$.n"),
        ({"s": "\ud800"}, "$.s"),
        ({"o": object()}, "$.o"),
        (float("nan"), "$"),
        ({"c": lambda: 0}, "$.c"),
    ],
)
def test_a_value_json_cannot_hold_is_refused_with_its_path(codec, value, path):
    with pytest.raises(LocalProtocolError) as caught:
        codec.encode(value)
    assert caught.value.code == "result_not_serializable"
    assert caught.value.message.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("\ud800", "lone surrogate in a key"),
        (2**64, "integer beyond 64 bits in a key"),
        (float("nan"), "nan is not JSON in a key"),
        ((1,), "a key of type tuple"),
    ],
    ids=["surrogate", "integer", "nan", "tuple"],
)
def test_a_key_json_cannot_hold_is_refused_for_what_it_is(codec, key, reason):
    # Some libraries write some of these keys; the value beside them is refused by all.
    with pytest.raises(LocalProtocolError) as caught:
        codec.encode({key: float("nan")})
    assert caught.value.message == f"$.{key}: {reason}"


@pytest.mark.parametrize("value", [CIRCLE, DEEP], ids=["circle", "deep"])
def test_endless_nesting_is_refused(codec, value):
    with pytest.raises(LocalProtocolError, match="nested"):
        codec.encode({"v": value})


@pytest.mark.parametrize("item", [7, {}, ["a,[{"], {"k": 1}], ids=["numbers", "objects", "arrays", "pairs"])
def test_two_hundred_thousand_values_are_written_and_one_more_is_not(codec, item):
    nodes = 2 if item not in (7, {}) else 1
    count, spare = divmod(MAX_NODES - 1, nodes)
    exact = [item] * count + [0] * spare
    assert codec.encode({"data": exact}).startswith(b'{"data":')
    with pytest.raises(LocalProtocolError, match=r"\$\.data: more than 200000 values"):
        codec.encode({"data": [*exact, 0]})


@pytest.mark.parametrize("leaf", [[], {}], ids=["array", "object"])
def test_sixty_four_levels_are_written_and_read_and_one_more_is_not(codec, leaf):
    payload = leaf
    for _ in range(MAX_DEPTH - 1):
        payload = [payload]
    message = {"type": "invokefunction", "text": "x" * 5000, "data": payload}
    assert codec.decode_block(codec.encode(message) + b"\n") == [message]
    with pytest.raises(LocalProtocolError, match="nested"):
        codec.encode({"data": [payload]})


def test_a_large_value_is_not_walked_through(codec, monkeypatch):
    # Looking at every value in Python takes fifty times as long as writing them.
    monkeypatch.setattr("iii.worker.codec.codec.find_unencodable", None)
    rows = [{"id": number, "tags": ["a", "b"]} for number in range(5_000)]
    assert len(codec.encode({"data": rows})) > 100_000


@pytest.mark.parametrize("package", ["msgspec", "orjson"])
def test_times_in_nanoseconds_and_long_ids_are_not_read_token_by_token(package):
    codec = make_codec(package)
    rows = [{"time": 1796079602371164000 + number, "id": "12345678901234567890123"} for number in range(2_000)]
    line = codec.encode({"type": "invokefunction", "data": rows}) + b"\n"
    assert codec.decode_block(line)[0]["data"] == rows
    # Token by token it takes hundreds of lines for each row.
    assert lines_run(lambda: codec.decode_block(line)) < 20 * len(rows)
    assert lines_run(lambda: codec.encode({"data": rows})) < 20 * len(rows)


@given(st.lists(VALUES, min_size=1, max_size=5), st.data())
def test_a_stream_may_be_cut_anywhere(values, data):
    codec = make_codec("msgspec")
    stream = b"".join(codec.encode({"v": value}) + b"\n" for value in values)
    cut = data.draw(st.integers(0, len(stream)))
    again = data.draw(st.integers(cut, len(stream)))
    reader = LineReader(codec)
    found = [message for part in (stream[:cut], stream[cut:again], stream[again:]) for message in reader.feed(part)]
    assert found == [{"v": value} for value in values]


def test_a_line_over_the_limit_costs_that_line_only():
    reader = LineReader(make_codec("json"), limit=200)
    found = []
    for part in (frame(b'"' + b"x" * 150), b"x" * 500, b'"}\n' + frame(b"1") + b"\n"):
        found += reader.feed(part)
    assert found[0].code == "payload_too_large"
    assert found[0].invocation_id == "i-1"
    assert found[1]["data"] == 1


def test_large_messages_count_as_work_of_the_standard_library(codec):
    message = {"type": "invokefunction", "data": "x" * 100_000}
    assert codec.decode_block(codec.encode(message) + b"\n") == [message]
    assert codec.encode({"data": 1})
    assert (codec.slow_bytes > 200_000) == (codec.package == "json")
