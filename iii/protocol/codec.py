"""Encode and decode messages: the one place of the engine that knows the JSON library.

`decode` refuses a line that two parsers could read differently, or that could break a later parser: malformed JSON,
invalid UTF-8, lone surrogates, duplicate keys in the envelope, nesting and node counts over the limits. Payloads are
validated as JSON while they are skipped, never built. Numbers and duplicate keys *inside* a payload are checked by the
callee's SDK, which parses it.

The work per line is one msgspec decode (0.4 us) plus a length comparison that proves the envelope canonical.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import reduce
from json import JSONDecoder
from operator import or_
from typing import Any, NoReturn

import msgspec
from msgspec import Raw, Struct

from iii.errors import ErrorCode, RemoteProtocolError
from iii.protocol.lines import HEAD
from iii.protocol.messages import ABSENT, ErrorBody, InvocationResult, InvokeFunction, Message, is_empty
from iii.protocol.shape import MAX_DEPTH, excess_of, is_moderate

# Bytes. A line up to this size cannot hold an envelope and 65 pairs of brackets: the depth check is skipped.
_SHALLOW = 150
# Bytes. The payload of a longer line from a trusted writer is not read at all.
UNREAD = 4096

_ID = re.compile(rb'"invocation_id"\s*:\s*"([A-Za-z0-9_.:-]{1,128})"')
_BYTE = re.compile(r"\(byte (\d+)\)")
_FIELD = re.compile(r"`\$\.?([^`]*)`")
_NEXT_KEY = re.compile(r'\s*[{,]\s*"')
_COLON = re.compile(r"\s*:\s*")

_INVOKE_OVERHEAD = len('{"type":"invokefunction","invocation_id":"","function_id":"","data":}')
_RESULT_OVERHEAD = len('{"type":"invocationresult","invocation_id":"","function_id":"","result":}')
_CALLER_OVERHEAD = len(',"caller":')

# What stands before a payload, the type of message that has it, and its field.
_PAYLOADS = ((b',"data":', InvokeFunction, "data"), (b',"result":', InvocationResult, "result"))

_decode = msgspec.json.Decoder(reduce(or_, Message.__subclasses__())).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
decode_value = msgspec.json.decode
encode_value = msgspec.json.Encoder().encode
# Returns the line of a message, without its newline.
encode: Callable[[Message], bytes] = encode_value
# Numbers are not built: an integer of a million digits takes minutes.
_parse = JSONDecoder(parse_int=len, parse_float=len).raw_decode


class NotAMessage(RemoteProtocolError):
    """The line is no message at all: not a JSON object with a string `type`. A worker's stray output."""


class NotAnObject(ValueError):
    """A payload is JSON, but not an object."""


class UnknownType(RemoteProtocolError):
    """A well-formed message of a type this version does not know; it is ignored."""


class _Head(Struct):
    type: Raw = ABSENT
    invocation_id: Raw = ABSENT


def encode_error(body: ErrorBody) -> Raw:
    """Return an error body as a raw value for an `error` field."""
    return Raw(encode_value(body))


def decode(line: bytes) -> Any:
    """Return the message on `line`.

    Raises `NotAMessage`, `UnknownType` or `RemoteProtocolError` (code `invalid_json` or `invalid_message`, byte
    offset, and the invocation id when the first 4 KiB show one). Never raises anything else.
    """
    try:
        message: Any = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _refuse(line, error)
    # Escapes, whitespace and a second copy of a key make a line longer than the sum of its fields: equal lengths prove
    # that the line holds each field once and nothing else.
    message_type = message.__class__
    size = len(line)
    if message_type is InvokeFunction and message.invocation_id is not None:
        size -= _INVOKE_OVERHEAD + len(message.function_id) + len(message.invocation_id) + len(message.data)
        if size and message.caller is not ABSENT:
            size -= _CALLER_OVERHEAD + len(message.caller)
    elif message_type is InvocationResult and message.function_id is not None and message.result is not ABSENT:
        size -= _RESULT_OVERHEAD + len(message.invocation_id) + len(message.function_id) + len(message.result)
    if size or len(line) > _SHALLOW or not line.isascii():
        if not line.isascii():
            _refuse_bad_utf8(line)
        if size:
            _refuse_duplicate_keys(line)
        if len(line) > _SHALLOW:
            _refuse_bombs(line, message)
    return message


def decode_trusted(line: bytes) -> Any:
    """Return the message on a line from a trusted writer. Raises as `decode`, but checks less.

    The writer promises what an encoder writes: each key once, no blanks, within the limits, and the payload as the last
    key. A large payload is then not read, whatever its size: it ends where the line ends.
    """
    if len(line) > UNREAD:
        message = _decode_head(line)
        if message is not None:
            return message
    try:
        return _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _refuse(line, error)


def _decode_head(line: bytes) -> Any:
    """Decode what stands before the payload, and take the payload as it is; None for a line of another form.

    If the first `,"data":` stood deeper down or in a string, the bytes before it and a brace would not be an object.
    """
    for key, message_type, field in _PAYLOADS:
        end = line.find(key, 0, HEAD)
        if end > 0:
            try:
                message = _decode(line[:end] + b"}")
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return None
            if message.__class__ is message_type and line.endswith(b"}"):
                setattr(message, field, Raw(memoryview(line)[end + len(key) : -1]))
                return message
    return None


def decode_object(raw: Raw) -> dict[str, Any]:
    """Return the object in a raw field; an empty one if the field is absent or null.

    Raises `NotAnObject` for any other JSON value, and `ValueError` for what cannot be decoded.
    """
    value = {} if is_empty(raw) else decode_value(raw)
    if not isinstance(value, dict):
        raise NotAnObject("not an object")
    return value


def invocation_id_in(head: bytes) -> str | None:
    """Return the first invocation id in a line that cannot be decoded (its first 4 KiB), if one shows."""
    match = _ID.search(head[:HEAD])
    return match[1].decode() if match else None


def _refuse(line: bytes, error: Exception) -> NoReturn:
    """Turn what the decoder raised into an error that names the place."""
    if isinstance(error, RecursionError):
        raise _invalid_json("nested too deeply", -1, invocation_id_in(line)) from None
    if isinstance(error, UnicodeDecodeError):
        _refuse_bad_utf8(line)
    if isinstance(error, msgspec.ValidationError):
        _refuse_shape(line, str(error))
    if line.startswith(b"\xef\xbb\xbf{"):
        raise _invalid_json("a byte order mark", 0, invocation_id_in(line)) from None
    text = str(error)
    place = _BYTE.search(text)
    offset = int(place[1]) if place else len(line)
    if line.lstrip()[:1] != b"{":
        raise NotAMessage(ErrorCode.INVALID_JSON, "not a JSON object", offset=offset) from None
    raise _invalid_json(text.removeprefix("JSON is malformed: "), offset, invocation_id_in(line)) from None


def _refuse_shape(line: bytes, text: str) -> NoReturn:
    """The line, as far as it was read, is JSON but not a message that this version knows."""
    try:
        head = decode_value(line, type=_Head)
    except msgspec.ValidationError:
        head = _Head()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The decoder stopped at a wrong type; further on the line is not even JSON.
        _refuse(line, error)
    type_name, invocation_id = _string(head.type), _string(head.invocation_id)
    if type_name is None:
        raise NotAMessage(ErrorCode.INVALID_MESSAGE, "a JSON value that is no message") from None
    field = _FIELD.search(text)
    if field and field[1] == "type":
        raise UnknownType(ErrorCode.INVALID_MESSAGE, f"unknown message type {type_name!r}", invocation_id=invocation_id)
    raise RemoteProtocolError(ErrorCode.INVALID_MESSAGE, f"{type_name}: {text}", invocation_id=invocation_id) from None


def _string(raw: Raw) -> str | None:
    try:
        return decode_value(raw, type=str)
    except ValueError:
        return None


def _refuse_duplicate_keys(line: bytes) -> None:
    """Refuse an envelope in which a key stands twice, however it is spelled.

    In a compact line the lengths of the distinct fields add up to its own; only lines with insignificant whitespace or
    escaped keys are parsed in full.
    """
    fields = _decode_fields(line)
    if len(line) == 1 + sum(len(key) + 4 + len(value) for key, value in fields.items()):
        return
    text = line.decode()
    seen: set[str] = set()
    start = _NEXT_KEY.match(text)
    while start:
        key, end = _parse(text, start.end() - 1)
        if key in seen:
            offset = len(text[: start.end() - 1].encode())
            raise _invalid_json(f"duplicate key {key!r}", offset, invocation_id_in(line))
        seen.add(key)
        colon = _COLON.match(text, end)
        try:
            end = _parse(text, colon.end() if colon else end)[1]
        except RecursionError:
            raise _invalid_json("nested too deeply", -1, None) from None
        start = _NEXT_KEY.match(text, end)


def _refuse_bad_utf8(line: bytes) -> None:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise _invalid_json("invalid UTF-8", error.start, invocation_id_in(line)) from None


def _refuse_bombs(line: bytes, message: Any) -> None:
    """Refuse a raw field nested deeper than `MAX_DEPTH` or with more than `MAX_NODES` values."""
    # A short line cannot hold too many values. The envelope is one level of it.
    is_shallow = len(line) <= UNREAD and line.count(b"[") + line.count(b"{") <= MAX_DEPTH + 1
    if is_shallow or is_moderate(line, envelope=1):
        return
    for field in message.__struct_fields__:
        value = getattr(message, field)
        if type(value) is Raw and value is not ABSENT:
            reason = excess_of(bytes(value))
            if reason:
                offset = line.find(bytes(value))
                raise _invalid_json(f"{field} has {reason}", offset, getattr(message, "invocation_id", None))


def _invalid_json(message: str, offset: int, invocation_id: str | None) -> RemoteProtocolError:
    text = f"invalid JSON{f' at byte {offset}' if offset >= 0 else ''}: {message}"
    return RemoteProtocolError(ErrorCode.INVALID_JSON, text, offset=offset, invocation_id=invocation_id)
