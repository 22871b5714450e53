"""Plain dicts to lines and back, through the fastest JSON library that is loaded, strictly in both directions.

The libraries let different things pass: duplicate keys, NaN, integers beyond 64 bits, endless nesting. So a block (all
complete lines of one read) is parsed, and then checked as a whole. The standard library's parser shows every pair and
every number to hooks. A fast parser drops the first of two equal keys. If its values, written again, are the same
bytes, it has dropped none; if they are not (blanks, another form of a float), its keys are counted against the colons.
Long integers and nesting are looked for in the bytes. The lines of a block in which a check finds something are read
again one by one, exactly, and `json_diagnosis` finds the offset of a fault.
"""

from __future__ import annotations

import sys

from iii.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from iii.worker.codec.limits import MAX_DEPTH, MAX_LINE, MAX_NODES
from iii.worker.codec.stdlib_json import decode_with_json, encode_with_json, find_unencodable, plain_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Message = dict[str, Any]

_DIGITS_TO_ZERO = bytes(0x30 if 0x30 <= byte <= 0x39 else byte for byte in range(256))
# The shortest integer beyond 64 bits has 19 digits and a sign.
_LONG_DIGITS = 19
_LONG_NUMBER = b"0" * _LONG_DIGITS
# Most calls have only type, function and id beside their payload.
_LEAST_KEYS = 3
# The keys of a call, beside its payload, that hold what a user wrote.
_USER_KEYS = frozenset(("action", "metadata", "namespace", "traceparent", "baggage"))
_PLAIN = frozenset((str, int, bool, type(None)))


class Codec:
    """Encode and decode; `package` names the library: `json`; after `upgrade`, `msgspec` or `orjson`.

    `slow_bytes` is how many bytes `json` has worked on, short messages aside. `encode_text` encodes by the
    library alone, without the checks of `encode`.
    """

    def __init__(self) -> None:
        self.slow_bytes = 0
        self._use_json()
        if "msgspec" in sys.modules or "orjson" in sys.modules:
            self.upgrade()

    def upgrade(self) -> None:
        """Switch to msgspec or orjson if one is installed. Loading it takes tens of milliseconds."""
        try:
            self._use_msgspec()
        except ImportError:
            self._use_orjson()

    def _use_json(self) -> None:
        self.package = "json"
        self.encode_text: Callable[[Any], bytes] = encode_with_json
        self._encode: Callable[[Any], bytes] = encode_with_json
        self._decode_lines: Callable[[bytes], list[Any]] = lambda block: list(map(decode_with_json, _lines_of(block)))
        self._encode_lines: Callable[[list[Any]], bytes] | None = None  # the parser is exact by itself

    def _use_msgspec(self) -> None:
        import msgspec  # loaded when the calls have shown that it pays

        decoder, encoder = msgspec.json.Decoder(), msgspec.json.Encoder(enc_hook=plain_value)
        self._encode = self.encode_text = encoder.encode
        self._encode_lines = encoder.encode_lines
        self._decode_lines = decoder.decode_lines
        self.package = "msgspec"

    def _use_orjson(self) -> None:
        try:
            from orjson import OPT_NON_STR_KEYS, dumps, loads
        except ImportError:
            return
        self._encode = lambda value: dumps(value, plain_value, OPT_NON_STR_KEYS)
        self.encode_text = dumps
        self._encode_lines = lambda values: b"".join([dumps(value) + b"\n" for value in values])
        self._decode_lines = lambda block: [loads(line) for line in _lines_of(block)]
        self.package = "orjson"

    def encode(self, value: Any, depth: int = 0) -> bytes:
        """Return `value` as compact JSON. LocalProtocolError `result_not_serializable` names the path.

        `depth` is how many containers the value will stand in: 1 for the payload of a message.
        """
        fault: tuple[str, str] | None
        try:
            body = self._encode(value)
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            fault = _locate(value, depth) or ("$", str(error))
        else:
            # Most bodies are short, without null, and without a long run of digits.
            size = len(body)
            if (
                size <= 2 * MAX_DEPTH
                and body.find(b"null") < 0
                and (size < _LONG_DIGITS or body.translate(_DIGITS_TO_ZERO).find(_LONG_NUMBER) < 0)
            ):
                return body
            if self.package == "json":
                self.slow_bytes += size
            # Fast encoders write NaN as null, and some integers of any size. (`find`: `in` takes twice its time.)
            has_wrong_number = (body.find(b"null") >= 0 and not _is_finite(value)) or _has_long_number(body)
            needs_a_look = has_wrong_number or _may_exceed(body, 1, depth)
            fault = (_locate(value, depth) or self._find_excess(value, depth)) if needs_a_look else None
            if fault is None:
                return body
        raise LocalProtocolError(ErrorCode.RESULT_NOT_SERIALIZABLE, ": ".join(fault))

    def _find_excess(self, value: Any, depth: int) -> tuple[str, str] | None:
        """Return (path, reason) where a message, or a payload that has depth 1, is nested too deep or too large."""
        from iii.protocol import shape  # short messages need no look at their shape

        is_message = isinstance(value, dict) and not depth
        parts = {f"$.{key}": item for key, item in value.items()} if is_message else {"$": value}
        for path, part in parts.items():
            excess = shape.excess_of(self._encode(part))
            if excess:
                return path, excess
        return None

    def encode_call(self, head: Message, payload: Any) -> bytes:
        """Return the line of a call: `head`, and `payload` as its last key `data`. Errors as in `encode`."""
        # A head in which no user wrote anything needs no check.
        is_ours = len(head) <= _LEAST_KEYS or head.keys().isdisjoint(_USER_KEYS)
        front = self._encode(head) if is_ours and head["function_id"].isascii() else self.encode(head)
        return b"".join((front[:-1], b',"data":', self.encode(payload, 1), b"}"))

    def decode_block(self, block: bytes) -> list[Message | RemoteProtocolError]:
        """Decode complete lines. A refused line yields the error in its place, with its offset and invocation id."""
        if self.package == "json":
            self.slow_bytes += len(block)
        try:
            values = self._decode_lines(block)
            if (
                not _may_exceed(block, len(values))
                and (values[0].__class__ is dict if len(values) == 1 else set(map(type, values)) == {dict})
                and not _has_long_number(block)
                and (
                    self._encode_lines is None
                    or self._encode_lines(values).startswith(block)
                    or _has_all_keys(values, block)
                )
            ):
                return values
        except (ValueError, RecursionError):
            pass
        return [_decode_exactly(line) for line in _lines_of(block)]


def _has_all_keys(values: list[Any], block: bytes) -> bool:
    """Tell whether a parser certainly made a key of every key in the text. False decides nothing."""
    # The colon of a key stands behind a quote or a blank. Some colons inside strings do too, but there are never fewer
    # of them than keys in the text, and never more keys made than these: if both are equal, none was dropped.
    if b"\t" in block or b"\r" in block:
        return False
    return _count_keys(values) == block.count(b'":') + block.count(b" :")


def _count_keys(container: Any) -> int:
    is_object = container.__class__ is dict
    keys = len(container) if is_object else 0
    for item in container.values() if is_object else container:
        if item.__class__ is dict or item.__class__ is list:
            keys += _count_keys(item)
    return keys


def _lines_of(block: bytes) -> list[bytes]:
    return [line for line in block.split(b"\n") if line and not line.isspace()]


def _decode_exactly(line: bytes) -> Message | RemoteProtocolError:
    from iii.worker.codec.json_diagnosis import find_fault, read_invocation_id  # as in `_has_long_number`

    fault = None
    try:
        value = decode_with_json(line)
        if value.__class__ is not dict:
            fault = find_fault(line) or ("not an object", 0)
        elif _has_long_number(line) or _may_exceed(line, 1):
            fault = find_fault(line)
    except (ValueError, RecursionError) as error:
        fault = find_fault(line) or (str(error), 0)
    if fault is None:
        return value  # type: ignore[no-any-return]
    message, offset = fault
    invocation_id = read_invocation_id(line)
    text = f"{message} at byte {offset}"
    return RemoteProtocolError(ErrorCode.INVALID_JSON, text, offset=offset, invocation_id=invocation_id)


def oversized(head: bytes, size: int) -> RemoteProtocolError:
    """The error of a line of `size` bytes, over the limit, of which `head` is the beginning."""
    from iii.worker.codec.json_diagnosis import read_invocation_id  # as in `_has_long_number`

    text = f"a line of {size} bytes is over the limit of {MAX_LINE}"
    invocation_id = read_invocation_id(head)
    return RemoteProtocolError(ErrorCode.PAYLOAD_TOO_LARGE, text, offset=MAX_LINE, invocation_id=invocation_id)


def _locate(value: Any, depth: int) -> tuple[str, str] | None:
    try:
        return find_unencodable(value, "$", depth)
    except RecursionError:
        return "$", "nested too deep"


def _has_long_number(data: bytes) -> bool:
    digits = data.translate(_DIGITS_TO_ZERO)
    if digits.find(_LONG_NUMBER) < 0:
        return False
    # Compiling its patterns costs a millisecond at start, and most workers never need it.
    from iii.worker.codec.json_diagnosis import has_long_integer

    return has_long_integer(digits)


def _may_exceed(block: bytes, lines: int, depth: int = 0) -> bool:
    """Tell whether one of these lines may be nested too deep or hold too many values."""
    if len(block) < 2 * (MAX_DEPTH + 2 - depth):
        return False
    # Every line opens at least one bracket: with fewer beyond those than the limit, none is nested too deep. And every
    # value has a comma beside it.
    brackets = block.count(b"{")
    if block.find(b"[") >= 0:  # takes less time than to count none
        brackets += block.count(b"[")
    needs_a_look = brackets > MAX_DEPTH + lines - depth or len(block) > 2 * MAX_NODES
    if not needs_a_look:
        return False
    from iii.protocol import shape  # short messages need no look at their shape

    return not shape.is_moderate(block, envelope=1 - depth)


def _is_finite(value: Any) -> bool:
    """Tell whether this is plain data without NaN and infinities."""
    cls = value.__class__
    if cls is dict:
        return all(map(_is_finite, value.values()))
    if cls is list:
        return all(map(_is_finite, value))
    return value - value == 0 if cls is float else cls in _PLAIN
