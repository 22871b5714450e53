"""Encode and decode messages: the one place of the engine that knows the JSON library.

`decode` refuses whatever could mean two things to two parsers or break a later one: malformed JSON, invalid
UTF-8, lone surrogates, duplicate keys in the envelope, nesting and node counts over the limits. Payloads are
validated as JSON while they are skipped, never built. Numbers and duplicate keys *inside* a payload are judged
where it is parsed, by the callee's SDK.

The work per line is one msgspec decode (0.4 us) plus a length comparison that proves the envelope canonical.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import msgspec
from msgspec import Raw, Struct

from iii.errors import ErrorCode, RemoteProtocolError
from iii.protocol.messages import ABSENT, AnyMessage, ErrorBody, InvocationResult, InvokeFunction, Message

# Deeper payloads break recursive parsers; no honest message comes near.
MAX_DEPTH = 64
# A value built from more nodes costs hundreds of MB of Python objects.
MAX_NODES = 200_000
# Under this size a line cannot hold an envelope and 65 pairs of brackets: the depth check is skipped.
_SHALLOW = 180
# An invocation id is looked for in this many bytes of a line that cannot be decoded.
_HEAD = 4096

_ID = re.compile(rb'"invocation_id"\s*:\s*"([A-Za-z0-9_.:-]{1,128})"')
_BYTE = re.compile(r"\(byte (\d+)\)")
_FIELD = re.compile(r"`\$\.?([^`]*)`")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_EMPTY = re.compile(rb"\[\s*\]|\{\s*\}")
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")

_INVOKE_OVERHEAD = len('{"type":"invokefunction","invocation_id":"","function_id":"","data":}')
_RESULT_OVERHEAD = len('{"type":"invocationresult","invocation_id":"","function_id":"","result":}')
_CALLER_OVERHEAD = len(',"caller":')

_decode = msgspec.json.Decoder(AnyMessage).decode
_fields_decoder = msgspec.json.Decoder(dict[str, Raw])
_encoder = msgspec.json.Encoder()
encode_value = _encoder.encode
decode_value = msgspec.json.decode


class NotAMessage(RemoteProtocolError):
    """The line is no message at all: not a JSON object with a string `type`. A worker's stray output."""


class UnknownType(RemoteProtocolError):
    """A well-formed message of a type this version does not know; it is ignored."""


class _Head(Struct):
    type: str | None = None
    invocation_id: str | None = None


_head_decoder = msgspec.json.Decoder(_Head)


def encode(message: Message) -> bytes:
    """Return the line of `message`, without its newline."""
    return _encoder.encode(message)


def encode_error(body: ErrorBody) -> Raw:
    """Return an error body as a raw value for an `error` field."""
    return Raw(_encoder.encode(body))


def decode(line: bytes) -> Any:
    """Return the message on `line`.

    Raises `NotAMessage`, `UnknownType` or `RemoteProtocolError` (code `invalid_json` or `invalid_message`, byte
    offset, and the invocation id when the first 4 KiB show one). Never raises anything else.
    """
    try:
        message = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _refuse(line, error)
    # Escapes, whitespace and a second copy of a key only ever make a line longer than the sum of its fields:
    # equal lengths prove that it holds each field once and nothing else.
    kind = message.__class__
    size = len(line)
    if kind is InvokeFunction and message.invocation_id is not None:
        size -= _INVOKE_OVERHEAD + len(message.function_id) + len(message.invocation_id) + len(message.data)
        if size and message.caller is not ABSENT:
            size -= _CALLER_OVERHEAD + len(message.caller)
    elif kind is InvocationResult and message.function_id is not None:
        size -= _RESULT_OVERHEAD + len(message.invocation_id) + len(message.function_id) + len(message.result)
    if size or len(line) > _SHALLOW or not line.isascii():
        _check(line, message, is_canonical=not size)
    return message


def _check(line: bytes, message: Any, *, is_canonical: bool) -> None:
    """The checks that a short, plain, canonical line does not need."""
    if not is_canonical:
        _refuse_duplicate_keys(line)
    if not line.isascii():
        _refuse_bad_utf8(line)
    if len(line) > _SHALLOW:
        _refuse_bombs(line, _payload(message))


def _payload(message: Any) -> Raw:
    kind = type(message)
    if kind is InvokeFunction:
        return message.data  # type: ignore[no-any-return]
    return message.result if kind is InvocationResult else ABSENT


def invocation_id_in(head: bytes) -> str | None:
    """Return the first invocation id in a line that cannot be decoded (its first 4 KiB), if one shows."""
    match = _ID.search(head[:_HEAD])
    return match[1].decode() if match else None


def _refuse(line: bytes, error: Exception) -> NoReturn:
    """Turn what the decoder raised into a refusal that names the place."""
    invocation_id = invocation_id_in(line)
    if isinstance(error, RecursionError):
        raise _invalid_json("nested too deeply", -1, invocation_id) from None
    if isinstance(error, UnicodeDecodeError):
        _refuse_bad_utf8(line)
    if isinstance(error, msgspec.ValidationError):
        _refuse_shape(line, str(error), invocation_id)
    text = str(error)
    found = _BYTE.search(text)
    offset = int(found[1]) if found else len(line)
    if not line.lstrip()[:1] == b"{":
        raise NotAMessage(ErrorCode.INVALID_JSON, "not a JSON object", offset=offset)
    raise _invalid_json(text.removeprefix("JSON is malformed: "), offset, invocation_id) from None


def _refuse_shape(line: bytes, text: str, invocation_id: str | None) -> NoReturn:
    """The line is JSON, but not one of our messages."""
    try:
        head = _head_decoder.decode(line)
    except msgspec.ValidationError:
        head = _Head()
    if head.type is None:
        raise NotAMessage(ErrorCode.INVALID_MESSAGE, "a JSON value that is no message", invocation_id=invocation_id)
    found = _FIELD.search(text)
    if found and found[1] == "type":
        raise UnknownType(ErrorCode.INVALID_MESSAGE, f"unknown message type {head.type!r}", invocation_id=invocation_id)
    raise RemoteProtocolError(ErrorCode.INVALID_MESSAGE, f"{head.type}: {text}", invocation_id=invocation_id) from None


def _refuse_duplicate_keys(line: bytes) -> None:
    """Refuse an envelope in which a key stands twice, however it is spelled.

    Compact lines are cleared by adding up the lengths of the distinct fields; only lines with insignificant
    whitespace or escaped keys are parsed in full.
    """
    fields = _fields_decoder.decode(line)
    size = 1 + sum(len(key) + 4 + len(value) for key, value in fields.items())
    if size != len(line):
        _parse_strictly(line)


def _parse_strictly(line: bytes) -> None:
    def refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) != len(pairs):
            keys = [key for key, _ in pairs]
            twin = next(key for key in keys if keys.count(key) > 1)
            offset = line.rfind(b'"' + twin.encode("utf-8", "replace") + b'"')
            raise _invalid_json(f"duplicate key {twin!r}", offset, invocation_id_in(line))
        return built

    try:
        json.loads(line, object_pairs_hook=refuse_twins)
    except RecursionError:
        raise _invalid_json("nested too deeply", -1, invocation_id_in(line)) from None
    except UnicodeDecodeError:
        _refuse_bad_utf8(line)
    except ValueError as error:
        # json's own limits, e.g. an integer of more than 4,300 digits
        raise _invalid_json(str(error), -1, invocation_id_in(line)) from None


def _refuse_bad_utf8(line: bytes) -> None:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise _invalid_json("invalid UTF-8", error.start, invocation_id_in(line)) from None


def _refuse_bombs(line: bytes, payload: Raw) -> None:
    """Refuse a payload nested deeper than `MAX_DEPTH` or with more than `MAX_NODES` values."""
    text = bytes(payload)
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH and len(text) <= MAX_NODES:
        return
    shape = _STRING.sub(b"0", text)
    if _depth(shape) > MAX_DEPTH:
        raise _invalid_json(f"nested deeper than {MAX_DEPTH} levels", -1, invocation_id_in(line))
    if _nodes(shape) > MAX_NODES:
        raise _invalid_json(f"more than {MAX_NODES} values", -1, invocation_id_in(line))


def _depth(shape: bytes) -> int:
    """Nesting depth of JSON without strings, counted by peeling off the innermost pairs at C speed."""
    brackets = shape.translate(_SQUARE, _NOT_BRACKETS)
    depth = 0
    while brackets and depth <= MAX_DEPTH:
        brackets = brackets.replace(b"[]", b"")
        depth += 1
    return depth


def _nodes(shape: bytes) -> int:
    """Values in JSON without strings: a container with k children holds k-1 commas, and the root is one more."""
    containers = shape.count(b"[") + shape.count(b"{") - len(_EMPTY.findall(shape))
    return shape.count(b",") + containers + 1


def _invalid_json(message: str, offset: int, invocation_id: str | None) -> RemoteProtocolError:
    where = f" at byte {offset}" if offset >= 0 else ""
    return RemoteProtocolError(
        ErrorCode.INVALID_JSON, f"invalid JSON{where}: {message}", offset=offset, invocation_id=invocation_id
    )
