"""Lines of trusted writers: the same messages, large payloads unread."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii.errors import ErrorCode, RemoteProtocolError
from iii.protocol.codec import UNREAD, NotAMessage, decode, decode_trusted, encode, encode_value

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAME = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), TEXT, st.just('","data":'), st.just("}")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(TEXT, st.sampled_from(["data", "result"])), inner)
    ),
    max_leaves=12,
)
LARGE = "x" * UNREAD


def fields(message: Any) -> dict[str, Any]:
    """The message's fields as plain values; those of raw fields as bytes."""
    values = {name: getattr(message, name) for name in message.__struct_fields__}
    return {"type": type(message)} | {
        name: value if isinstance(value, str | int | float | bool | type(None)) else bytes(value)
        for name, value in values.items()
    }


@given(st.tuples(NAME, NAME), JSON, JSON, st.booleans(), st.booleans())
def test_a_canonical_line_is_the_message_that_it_is_for_everybody(
    names: tuple[str, str], metadata: Any, data: Any, is_call: bool, is_large: bool
) -> None:
    function, id = names
    payload = [data, LARGE] if is_large else data
    call = {"type": "invokefunction", "invocation_id": id, "function_id": function, "metadata": metadata}
    answer = {"type": "invocationresult", "invocation_id": id, "function_id": function}
    line = encode_value(call | {"data": payload} if is_call else answer | {"result": payload})
    assert fields(decode_trusted(line)) == fields(decode(line))


@given(NAME, JSON)
def test_other_messages_with_a_payload_key_deep_inside_are_read_in_full(name: str, value: Any) -> None:
    metadata = [{"a": 1, "data": value, "result": LARGE}]
    line = encode_value({"type": "registerfunction", "id": name, "metadata": metadata})
    assert fields(decode_trusted(line)) == fields(decode(line))


def test_a_large_payload_is_not_looked_at() -> None:
    line = b'{"type":"invokefunction","invocation_id":"i","function_id":"f","data":{"a":' + b"\xff" * UNREAD + b"}"
    message = decode_trusted(line)
    assert (message.function_id, message.invocation_id) == ("f", "i")
    assert bytes(message.data) == b'{"a":' + b"\xff" * UNREAD
    assert encode(message).endswith(bytes(message.data) + b"}")


@pytest.mark.parametrize(
    "head",
    [
        b'{"type":"invokefunction","invocation_id":"i","function_id":7,"data":"',
        b'{"type":"invokefunction","invocation_id":"i","metadata":{"a":1,"data":"',
        b'{"type":"invokefunction","invocation_id":"i","function_id":"f,"data":"',
        b'{"type":"invokefunction","invocation_id":"i","function_id":"f","caller":{,"data":"',
    ],
    ids=["wrong type", "deeper", "in a string", "malformed"],
)
def test_a_head_that_is_no_head_is_refused_as_on_any_line(head: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_trusted(head + LARGE.encode() + b'"}')
    assert caught.value.invocation_id == "i"


@pytest.mark.parametrize("size", [1, UNREAD])
def test_what_is_no_message_is_told_apart(size: int) -> None:
    with pytest.raises(NotAMessage):
        decode_trusted(b"Hello" * size)


def test_a_line_that_goes_on_behind_its_end_is_read_in_full() -> None:
    line = b'{"type":"invocationresult","invocation_id":"i","result":"' + LARGE.encode() + b'"} '
    assert fields(decode_trusted(line)) == fields(decode(line))
    with pytest.raises(RemoteProtocolError) as caught:
        decode_trusted(line + b"x")
    assert caught.value.code == ErrorCode.INVALID_JSON
