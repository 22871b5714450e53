"""Decoding refuses what could mean two things or break a later parser, and raises nothing but `RemoteProtocolError`."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import NODEFAULT, Raw

from iii.errors import ErrorCode, RemoteProtocolError
from iii.protocol import messages as m
from iii.protocol.codec import NotAMessage, UnknownType, decode, encode, encode_value
from iii.protocol.shape import MAX_DEPTH, MAX_NODES

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=8,
)
RAW = JSON.map(lambda value: Raw(encode_value(value)))
TYPES = m.Message.__subclasses__()


def refusal(line: bytes) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(line)
    return caught.value


def refused(line: bytes) -> RemoteProtocolError | None:
    try:
        decode(line)
    except RemoteProtocolError as error:
        return error
    return None


def invoke(data: bytes, more: bytes = b"") -> bytes:
    return b'{"type":"invokefunction","invocation_id":"i1","function_id":"f","data":%s%s}' % (data, more)


# Round trips


def fields_of(kind: type) -> st.SearchStrategy[Any]:
    return st.builds(
        kind,
        **{
            field.name: strategy if field.required or field.default is NODEFAULT else st.just(field.default) | strategy
            for field in msgspec.structs.fields(kind)
            for strategy in [strategy_of(str(field.type))]
        },
    )


def strategy_of(annotation: str) -> st.SearchStrategy[Any]:
    for name, strategy in {
        "list[msgspec.Raw]": st.lists(RAW, max_size=3),
        "Raw": RAW,
        "dict[str, str]": st.dictionaries(TEXT, TEXT, max_size=3),
        "list[str]": st.lists(TEXT, max_size=3),
        "float": st.floats(min_value=0.5, max_value=1e12),
        "int": st.integers(0, 2**53),
        "bool": st.booleans(),
    }.items():
        if name in annotation:
            return strategy
    return TEXT


def plain(message: Any) -> dict[str, Any]:
    """The fields of a message, raw ones as bytes."""
    values = {name: getattr(message, name) for name in message.__struct_fields__}
    return {name: bytes(value) if isinstance(value, Raw) else value for name, value in values.items()}


@settings(max_examples=150)
@given(st.one_of([fields_of(kind) for kind in TYPES]))
def test_every_message_comes_back_as_it_was_sent(message: Any) -> None:
    line = encode(message)
    assert b"\n" not in line
    back = decode(line)
    assert type(back) is type(message)
    assert plain(back) == plain(message)


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_the_type_on_the_wire_is_the_name_in_lower_case(kind: type) -> None:
    required = {field.name for field in msgspec.structs.fields(kind) if field.required}
    example = kind(**{name: Raw(b"1") if name == "error" else 5.0 if "_ms" in name else "x" for name in required})
    assert json.loads(encode(example))["type"] == kind.__name__.lower()


def test_an_absent_optional_field_is_the_absent_object_itself() -> None:
    assert decode(b'{"type":"invokefunction","function_id":"f"}').data is m.ABSENT


# Whatever the bytes


@settings(max_examples=200)
@given(st.binary(max_size=80))
def test_decoding_any_bytes_raises_nothing_but_a_remote_protocol_error(line: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        decode(line)


LINES = [
    invoke(b'{"a":[1,2,{"b":"\\u00e9"}]}', b',"caller":{"invocation_id":"p"},"deadline_ms":5'),
    b'{"type":"invocationresult","invocation_id":"i1","function_id":"f","error":{"code":"c","message":"m"}}',
    b'{"type":"ready","files":["/a","/b"]}',
    b'{"type":"registerfunction","id":"f","metadata":{"idempotent":true},"request_format":{"type":"object"}}',
]


@settings(max_examples=300)
@given(st.sampled_from(LINES), st.integers(0, 200), st.integers(0, 8), st.binary(max_size=4))
@example(b'{"type":"ready","files":5, garbage', 0, 0, b"")
@example(b'{"type":"ready","files":5,"x":"\xff"}', 0, 0, b"")
def test_a_damaged_message_raises_nothing_but_a_remote_protocol_error(
    line: bytes, at: int, cut: int, instead: bytes
) -> None:
    damaged = line[:at] + instead + line[at + cut :]
    error = refused(damaged)
    assert error is None or error.code in (ErrorCode.INVALID_JSON, ErrorCode.INVALID_MESSAGE)
    assert error is None or error.offset <= len(damaged)


# The refusals, with their places

# Where the payload of `invoke` begins.
DATA = len(b'{"type":"invokefunction","invocation_id":"i1","function_id":"f","data":')
SYNTAX = [
    (b"{1:2}", 1),
    (invoke(b"nul"), DATA),
    (invoke(b"NaN"), DATA),
    (invoke(b"Infinity"), DATA),
    (invoke(b"01"), DATA),
    (invoke(b'"\x01"'), DATA + 1),
    (invoke(b'"\\x"'), DATA + 2),
    (invoke(b'"\\ud800"'), None),
    (invoke(b'"\\udc00"'), None),
    (invoke(b'"\xff"'), DATA + 1),
    (invoke(b'"\xed\xa0\x80"'), DATA + 1),
    (invoke(b'"\xc0\xaf"'), DATA + 1),
    (b"\xef\xbb\xbf" + invoke(b"1"), 0),
    (invoke(b"1")[:-1], len(invoke(b"1")) - 1),
    (invoke(b"1") + b"x", len(invoke(b"1"))),
    (b'{"type":"ready","files":5,garbage}', 26),
]


@pytest.mark.parametrize(("line", "offset"), SYNTAX, ids=[repr(line[-14:]) for line, _ in SYNTAX])
def test_broken_json_is_refused_where_it_breaks(line: bytes, offset: int | None) -> None:
    error = refusal(line)
    assert error.code == ErrorCode.INVALID_JSON
    assert not isinstance(error, NotAMessage)
    # The decoder names the wrong byte or, where it had to read it first, the next one.
    assert error.offset - offset in (0, 1) if offset is not None else 0 < error.offset <= len(line)
    assert f"at byte {error.offset}" in error.message
    assert error.invocation_id == ("i1" if b'"i1"' in line else None)


@pytest.mark.parametrize("line", [b"", b"hello", b" ", b"[1]", b"1", b'"x"', b'{"a":1}', b'{"type":5}', b"null"])
def test_a_line_that_is_no_frame_is_the_output_of_a_program(line: bytes) -> None:
    assert isinstance(refusal(line), NotAMessage)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_are_refused(encoding: str) -> None:
    assert refusal('{"type":"ping"}'.encode(encoding)).code == ErrorCode.INVALID_JSON


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"type":"invokefunction","invocation_id":5,"function_id":"f"}', "invocation_id"),
        (b'{"type":"invokefunction","invocation_id":"i1"}', "function_id"),
        (b'{"type":"invokefunction","invocation_id":"i1","function_id":"f","deadline_ms":"1"}', "deadline_ms"),
        (b'{"type":"invokefunction","invocation_id":"i1","function_id":"f","deadline_ms":1e400}', "deadline_ms"),
        (b'{"type":"ready","files":[1]}', "files"),
        (b'{"type":"registerfunction","id":null}', "id"),
    ],
)
def test_a_wrong_field_is_named(line: bytes, words: str) -> None:
    error = refusal(line)
    assert error.code == ErrorCode.INVALID_MESSAGE
    assert not isinstance(error, NotAMessage | UnknownType)
    assert words in error.message
    assert error.invocation_id == ("i1" if b'"i1"' in line else None)


def test_the_id_of_a_refused_message_is_its_own_not_one_inside_a_field() -> None:
    line = b'{"type":"invokefunction","caller":{"invocation_id":"parent"},"invocation_id":"mine","function_id":5}'
    assert refusal(line).invocation_id == "mine"


def test_an_unknown_type_is_told_apart() -> None:
    error = refusal(b'{"type":"brandnew","invocation_id":"i9"}')
    assert isinstance(error, UnknownType)
    assert "'brandnew'" in error.message
    assert error.invocation_id == "i9"


def test_unknown_fields_are_ignored() -> None:
    assert decode(b'{"type":"ping","extra":[1,{"a":2}]}') == m.Ping()


# Bombs


def nested(depth: int, inside: bytes = b"") -> bytes:
    return (
        b'{"a":' * (depth // 2)
        + b"[" * (depth - depth // 2)
        + inside
        + b"]" * (depth - depth // 2)
        + b"}" * (depth // 2)
    )


RAW_FIELDS = [
    b'{"type":"invokefunction","function_id":"","data":%s}',
    b'{"type":"invokefunction","function_id":"f","metadata":%s}',
    b'{"type":"invocationresult","invocation_id":"i1","function_id":"f","result":%s}',
    b'{"type":"invocationresult","invocation_id":"i1","error":%s}',
    b'{"type":"registerfunction","id":"f","request_format":%s}',
    b'{"type":"registertrigger","id":"t","trigger_type":"x","function_id":"f","config":%s}',
    b'{"type":"error","error":%s}',
]


@pytest.mark.parametrize("form", RAW_FIELDS)
@pytest.mark.parametrize(("depth", "is_fine"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False), (900, False)])
def test_sixty_four_levels_pass_in_any_field_and_one_more_does_not(form: bytes, depth: int, is_fine: bool) -> None:
    line = form % (b"[" * depth + b"]" * depth)
    if is_fine:
        decode(line)
    else:
        assert "levels" in refusal(line).message
        assert refusal(line).code == ErrorCode.INVALID_JSON
        assert refusal(line).offset == form.index(b"%s")


@pytest.mark.parametrize("depth", [1_200, 100_000])
def test_a_hundred_thousand_levels_are_refused_before_anything_recurses(depth: int) -> None:
    assert refusal(invoke(b"[" * depth + b"]" * depth)).code == ErrorCode.INVALID_JSON
    assert refusal(invoke(b"[" * depth)).code == ErrorCode.INVALID_JSON


def from_a_deep_stack(levels: int, line: bytes) -> Any:
    return from_a_deep_stack(levels - 1, line) if levels else decode(line)


@pytest.mark.parametrize(
    "form", [b'{"type":"x","data":%s}', b'{ "type" : "invokefunction","function_id":"f","data":%s}']
)
def test_the_answer_does_not_depend_on_the_stack(form: bytes) -> None:
    levels = sys.getrecursionlimit() - 300
    line = b'{ "type" : "invokefunction","function_id":"f","data":%s}'
    assert from_a_deep_stack(levels, line % nested(MAX_DEPTH)) == decode(line % nested(MAX_DEPTH))
    with pytest.raises(RemoteProtocolError, match="levels"):
        from_a_deep_stack(levels, line % nested(MAX_DEPTH + 1))


@pytest.mark.parametrize(
    ("item", "per_item"),
    [(b"{}", 1), (b"[ ]", 1), (b'"a,[{"', 1), (b'{"k":1}', 2), (b"7", 1)],
    ids=["objects", "arrays", "strings", "pairs", "numbers"],
)
def test_two_hundred_thousand_values_pass_and_one_more_does_not(item: bytes, per_item: int) -> None:
    count = (MAX_NODES - 1) // per_item
    spare = MAX_NODES - 1 - count * per_item
    exact = b",".join([item] * count + [b"0"] * spare)
    assert decode(invoke(b"[%s]" % exact)).data
    error = refusal(invoke(b"[%s,0]" % exact))
    assert "200000 values" in error.message
    assert (error.code, error.invocation_id) == (ErrorCode.INVALID_JSON, "i1")


@settings(max_examples=30)
@given(JSON)
def test_brackets_and_commas_inside_strings_count_for_nothing(value: Any) -> None:
    noise = '[[[{{{,,,"\\\\"\\' * 40
    decode(invoke(encode_value({"noise": noise, noise: [value, noise]})))


def test_a_string_of_sixteen_mebibytes_is_not_scanned_for_nodes() -> None:
    # A scan that keeps a place per character would take 2 GB.
    data = b'"' + b"x" * (15 << 20) + b'"'
    assert len(decode(invoke(data)).data) == len(data)


# Duplicate keys

TWINS = [
    invoke(b"1", b',"data":2'),
    invoke(b"1", b',"invocation_id":"i2"'),
    invoke(b"1", b',"typ\\u0065":"invokefunction"'),
    invoke(b"1", b',"d\\u0061ta":2'),
    invoke(b"1", b',"unknown":1,"unknown":1'),
    b'{"type":"ping","type":"ping"}',
    b'{"type":"invokefunction","function_id":"f","x":1,"\\u0078":2}',
    b'{"type":"invocationresult","invocation_id":"i1","function_id":"f","":1,"":1}',
    b'{ "type" : "ready" , "files" : ["a"] , "files" : ["b"] }',
    '{"type":"cancel","invocation_id":"i1","é":1,"\\u00e9":2}'.encode(),
]


@pytest.mark.parametrize("line", TWINS)
def test_a_key_that_stands_twice_in_the_envelope_is_refused(line: bytes) -> None:
    assert refusal(line).code == ErrorCode.INVALID_JSON
    assert "duplicate key" in refusal(line).message


def test_a_duplicate_is_refused_at_the_byte_of_its_second_copy() -> None:
    line = '{"type":"ready","é":{"files":1},"files":[],"files":["a"]}'.encode()
    assert refusal(line).offset == line.rindex(b'"files"')


@pytest.mark.parametrize("space", [b"", b" "])
def test_duplicate_keys_inside_a_payload_are_left_to_the_callee(space: bytes) -> None:
    data = b'{"a":1,"a":2}'
    assert bytes(decode(invoke(data, space)).data) == data


@pytest.mark.parametrize("space", [b"", b" "])
def test_a_number_of_five_thousand_digits_is_left_to_the_callee(space: bytes) -> None:
    assert len(decode(invoke(b"9" * 5000, space)).data) == 5000


def test_a_payload_is_kept_byte_for_byte() -> None:
    data = ' { "a" : "\u2028\u2029\x7f\\f\\u001c" , "b" : -0.0 } '.encode()
    assert bytes(decode(invoke(data)).data) == data.strip()


# The proof by length against a slow reference

SPACE = st.sampled_from(["", "", "", " ", "\t", "  "])
KNOWN = ["type", "invocation_id", "function_id", "data", "result", "caller", "error", "metadata", "x", "", "xy"]


@st.composite
def spelled(draw: st.DrawFn, key: str) -> str:
    """A key as JSON text: some characters escaped."""
    return '"' + "".join(f"\\u{ord(c):04x}" if draw(st.integers(0, 9)) == 0 else c for c in key) + '"'


VALUES = {
    "type": st.sampled_from(['"invokefunction"', '"invocationresult"']),
    "invocation_id": st.sampled_from(['"i1"', '"é"', '"\\u0069"']),
    "function_id": st.sampled_from(['"f"', '"ff"', '"\\u00e9"', '""']),
}
ANY_VALUE = st.sampled_from(["1", "12", "null", '""', '"é"', '{"a":1,"a":2}', "[ 1 ]", "123", "1234567"])


@st.composite
def envelopes(draw: st.DrawFn) -> str:
    keys = ["type", "invocation_id", "function_id", *draw(st.lists(st.sampled_from(KNOWN), max_size=4))]
    parts = []
    for key in draw(st.permutations(keys)):
        value = draw(VALUES.get(key, ANY_VALUE))
        before, after, colon = draw(SPACE), draw(SPACE), draw(SPACE)
        parts.append(f"{before}{draw(spelled(key))}{colon}:{after}{value}")
    return "{" + ",".join(parts) + draw(SPACE) + "}"


def has_twin(text: str) -> bool:
    """The slow reference: parse in full and look for a key that stands twice in the outermost object."""
    last: list[tuple[str, Any]] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        last[:] = pairs
        return dict(pairs)

    json.loads(text, object_pairs_hook=note)
    return len({key for key, _ in last}) != len(last)


@settings(max_examples=600)
@given(envelopes())
@example('{"type":"invocationresult","invocation_id":"i1","function_id":"f","":1,"":1}')
@example('{"type":"invokefunction","invocation_id":"i1","function_id":"f","xy":123}')
def test_an_envelope_is_refused_exactly_when_a_key_stands_twice(text: str) -> None:
    assert (refused(text.encode()) is not None) == has_twin(text)


def test_the_refusal_says_at_which_byte() -> None:
    assert re.search(r"at byte \d+", refusal(b'{"type":"ping",}').message)
