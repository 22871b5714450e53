"""Plain dicts to lines and back, through the fastest JSON library that is loaded.

Strict by the rule *fast parser first, cheap check of the whole block, exact scan only when suspicious*. A block is
all complete lines of one read. msgspec writes what it has parsed once more: the same bytes prove that no key stood
twice, at a fifth of the cost of looking. Otherwise the keys that were built are counted against the `":` in the bytes
(fewer means a duplicate, or merely blanks before a colon). Runs of 19 digits and depth are looked for in any case.
What counting cannot see: a line with a duplicate key and, in the same block, exactly as many `":` lost elsewhere,
for example to blanks before a colon. Everything else is exact. `strict_json` finds the offset of a fault.
"""

from __future__ import annotations

import sys

from iii.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from iii.worker.codec.encodability import find_unencodable, plain_value
from iii.worker.codec.limits import MAX_DEPTH, MAX_LINE, MAX_NODES
from iii.worker.codec.stdlib_json import decode_with_json, encode_with_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    Message = dict[str, Any]

_DIGITS_TO_ZERO = bytes(0x30 if 0x30 <= byte <= 0x39 else byte for byte in range(256))
# The shortest integer beyond 64 bits has 19 digits and a sign.
_LONG_DIGITS = 19
_LONG_NUMBER = b"0" * _LONG_DIGITS
# What of a call beside its payload is of a caller's making.
_LEAST_KEYS = 3
_USER_KEYS = frozenset(("action", "metadata", "namespace", "traceparent", "baggage"))
_PLAIN = frozenset((str, int, bool, type(None)))


class Codec:
    """Encode and decode; `package` names what does the work: `json`; after `upgrade`, `msgspec` or `orjson`."""

    def __init__(self) -> None:
        self.package = "json"
        self.slow_bytes = 0  # that the standard library has worked on, short messages aside
        # The package's encoder as it is, for what is known to be text.
        self.encode_text: Callable[[str], bytes] = encode_with_json
        self._encode: Callable[[Any], bytes] = encode_with_json
        self._decode: Callable[[bytes], Any] = decode_with_json
        self._decode_lines: Callable[[bytes], list[Any]] | None = None
        self._encode_lines: Callable[[list[Any]], bytes] | None = None
        if "msgspec" in sys.modules or "orjson" in sys.modules:
            self.upgrade()

    def upgrade(self) -> None:
        """Switch to msgspec or orjson if one is installed. Loading it takes tens of milliseconds."""
        try:
            self._use_msgspec()
        except ImportError:
            self._use_orjson()

    def _use_msgspec(self) -> None:
        import msgspec  # loaded when the calls have shown that it pays

        decoder, encoder = msgspec.json.Decoder(), msgspec.json.Encoder(enc_hook=plain_value)
        self._encode = self.encode_text = encoder.encode
        self._decode = decoder.decode
        self._encode_lines = encoder.encode_lines
        self._decode_lines = decoder.decode_lines
        self.package = "msgspec"

    def _use_orjson(self) -> None:
        try:
            import orjson
        except ImportError:
            return
        options = orjson.OPT_NON_STR_KEYS
        self._encode = lambda value: orjson.dumps(value, plain_value, options)
        self.encode_text = orjson.dumps
        self._decode = orjson.loads
        self.package = "orjson"

    def encode(self, value: Any, depth: int = 0) -> bytes:
        """Return `value` as compact JSON. LocalProtocolError `result_not_serializable` names the path.

        `depth` is how many containers it will stand in: 1 for the payload of a message.
        """
        try:
            body = self._encode(value)
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            path, reason = _locate(value, depth) or ("$", str(error))
            raise _not_serializable(path, reason) from None
        # What most bodies are: short, without null, and without a long run of digits.
        size = len(body)
        if (
            size <= 2 * MAX_DEPTH
            and body.find(b"null") < 0
            and (size < _LONG_DIGITS or body.translate(_DIGITS_TO_ZERO).find(_LONG_NUMBER) < 0)
        ):
            return body
        self._note_work(body)
        if _is_suspect_output(body, value) or _may_exceed(body, 1, depth):
            fault = _locate(value, depth) or self._find_excess(value, depth)
            if fault:
                raise _not_serializable(*fault)
        return body

    def _note_work(self, data: bytes) -> None:
        if self.package == "json":
            self.slow_bytes += len(data)

    def _find_excess(self, value: Any, depth: int) -> tuple[str, str] | None:
        is_message = isinstance(value, dict) and not depth
        parts = {f"$.{key}": item for key, item in value.items()} if is_message else {"$": value}
        for path, part in parts.items():
            excess = _shape().excess_of(self._encode(part))
            if excess:
                return path, excess
        return None

    def encode_call(self, head: Message, payload: Any) -> bytes:
        """Return the line of a call: `head`, and `payload` as its last key `data`. Errors as in `encode`."""
        # What no user wrote needs no check. Most have only type, function and id.
        is_ours = len(head) <= _LEAST_KEYS or head.keys().isdisjoint(_USER_KEYS)
        front = self._encode(head) if is_ours and head["function_id"].isascii() else self.encode(head)
        return b"".join((front[:-1], b',"data":', self.encode(payload, 1), b"}"))

    def decode_block(self, block: bytes) -> list[Message | RemoteProtocolError]:
        """Decode complete lines. A refused line yields the error in its place, with its offset and id."""
        try:
            if self._decode_lines is not None:
                values = self._decode_lines(block)
                if self._is_canonical(values, block) and not _has_long_number(block):
                    return values
            else:
                self._note_work(block)
                values = [self._decode(line) for line in block.split(b"\n") if line and not line.isspace()]
            if _count_keys(values) == block.count(b'":') and not _has_long_number(block):
                return values
        except (ValueError, RecursionError, AttributeError):
            pass
        return [self._decode_strictly(line) for line in block.split(b"\n") if line and not line.isspace()]

    def _is_canonical(self, values: list[Any], block: bytes) -> bool:
        assert self._encode_lines is not None
        return (
            not _may_exceed(block, len(values))
            and self._encode_lines(values).startswith(block)
            and (values[0].__class__ is dict if len(values) == 1 else set(map(type, values)) == {dict})
        )

    def _decode_strictly(self, line: bytes) -> Message | RemoteProtocolError:
        if self._is_clean(line):
            value = self._decode(line)
            return value if isinstance(value, dict) else _refused(line, ("not an object", 0))
        fault = _exact().find_fault(line)
        if fault:
            return _refused(line, fault)
        try:
            value = self._decode(line)
        except (ValueError, RecursionError) as error:
            return _refused(line, (str(error), 0))
        return value if isinstance(value, dict) else _refused(line, ("not an object", 0))

    def _is_clean(self, line: bytes) -> bool:
        try:
            keys = _count_keys([self._decode(line)])
        except (ValueError, RecursionError, AttributeError):
            return False
        # An escaped quote before a colon is text inside a string, the usual cause of a wrong count.
        colons = line.count(b'":') - line.count(b'\\":')
        return keys == colons and b'\\\\"' not in line and not _has_long_number(line)


def oversized(head: bytes, size: int) -> RemoteProtocolError:
    """The error of a line of `size` bytes, over the limit, of which `head` is the beginning."""
    message = f"a line of {size} bytes is over the limit of {MAX_LINE}"
    return RemoteProtocolError(
        ErrorCode.PAYLOAD_TOO_LARGE, message, offset=MAX_LINE, invocation_id=_exact().read_invocation_id(head)
    )


def _refused(line: bytes, fault: tuple[str, int]) -> RemoteProtocolError:
    message, offset = fault
    return RemoteProtocolError(
        ErrorCode.INVALID_JSON,
        f"{message} at byte {offset}",
        offset=offset,
        invocation_id=_exact().read_invocation_id(line),
    )


def _exact() -> ModuleType:
    # Compiling its patterns costs a millisecond at start, and most workers never need it.
    from iii.worker.codec import json_diagnosis

    return json_diagnosis


def _shape() -> ModuleType:
    # Short messages need no look at their shape.
    from iii.protocol import shape

    return shape


def _not_serializable(path: str, reason: str) -> LocalProtocolError:
    return LocalProtocolError(ErrorCode.RESULT_NOT_SERIALIZABLE, f"{path}: {reason}")


def _locate(value: Any, depth: int) -> tuple[str, str] | None:
    try:
        return find_unencodable(value, "$", depth)
    except RecursionError:
        return "$", "nested too deep"


def _has_long_number(data: bytes) -> bool:
    return data.translate(_DIGITS_TO_ZERO).find(_LONG_NUMBER) >= 0 and bool(_exact().has_long_integer(data))


def _is_suspect_output(body: bytes, value: Any) -> bool:
    # Fast encoders write NaN as null, and some write integers of any size. (`find`: `in` takes twice its time.)
    return (body.find(b"null") >= 0 and not _is_finite(value)) or _has_long_number(body)


def _may_exceed(block: bytes, lines: int, depth: int = 0) -> bool:
    """Tell whether one of these lines may be nested too deep or hold too many values."""
    if len(block) < 2 * (MAX_DEPTH + 2 - depth):
        return False
    # Every line opens at least one bracket: with fewer beyond those than the limit, none is nested too deep. And every
    # value has a comma beside it.
    brackets = block.count(b"{")
    if block.find(b"[") >= 0:  # takes less time than to count none
        brackets += block.count(b"[")
    is_suspect = brackets > MAX_DEPTH + lines - depth or len(block) > 2 * MAX_NODES
    return is_suspect and not _shape().is_moderate(block, envelope=1 - depth)


def _is_finite(value: Any) -> bool:
    """Tell whether this is plain data without NaN and infinities."""
    kind = value.__class__
    if kind is dict:
        return all(map(_is_finite, value.values()))
    if kind is list:
        return all(map(_is_finite, value))
    return value - value == 0 if kind is float else kind in _PLAIN


def _count_keys(values: list[Any]) -> int:
    """Count the keys of all objects inside; ValueError for a non-object or nesting beyond the limit."""
    keys = 0
    for value in values:
        if value.__class__ is not dict:
            raise ValueError("not an object")
        keys += _count_inside(value, 0)
    return keys


def _count_inside(container: Any, depth: int) -> int:
    if depth > MAX_DEPTH:
        raise ValueError("nested too deep")
    keys = 0
    items = container
    if container.__class__ is dict:
        keys = len(container)
        items = container.values()
    for item in items:
        kind = item.__class__
        if kind is dict or kind is list:
            keys += _count_inside(item, depth + 1)
    return keys
