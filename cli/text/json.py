"""JSON for the short path: the C halves of the standard library's json, without its Python half.

`import json` compiles regular expressions and builds enums, which takes longer than a whole call; the C scanner and
encoder behind it need neither. Where they are missing (other interpreters) the json module itself serves.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_SPACE = " \t\r\n"


def decode(text: str) -> Any:
    """Return the value of a JSON text that a person wrote. Raises ValueError, also for NaN and Infinity."""
    bare = text.strip(_SPACE)
    if bare[:1] in ("{", "[", '"'):
        import json  # only it can say where a structure is wrong

        return json.loads(text, parse_constant=_refuse_constant)
    try:
        value, end = _scan(bare, 0)
    except StopIteration:
        raise ValueError("this is not JSON") from None
    if end != len(bare):
        raise ValueError("there is more text after the JSON value")
    return value


def decode_line(line: str) -> Any:
    """Return the value of a line that a program wrote. Raises ValueError if it is not JSON."""
    try:
        return _scan(line, 0)[0]
    except (StopIteration, SystemError):
        # The scanner takes its exception from json.decoder; while that is not loaded it fails without an exception.
        import json  # only a failure pays for it

        return json.loads(line)


def encode(value: Any, item_separator: str = ",", key_separator: str = ":") -> str:
    """Return `value` as JSON on one line, non-ASCII kept. Raises ValueError for what JSON cannot hold."""
    return "".join(_encoder(item_separator, key_separator)(value, 0))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse_value(value: object) -> NoReturn:
    raise ValueError(f"{type(value).__name__} is not JSON")


class _Settings:
    """What the scanner reads its options from; the names are its own."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)


try:
    from _json import encode_basestring, make_encoder, make_scanner
except ImportError:
    import json

    _scan: Any = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode

    def _encoder(item_separator: str, key_separator: str) -> Any:
        separators = (item_separator, key_separator)
        encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=separators)
        return lambda value, _level: (encoder.encode(value),)

else:
    _scan = make_scanner(_Settings())  # type: ignore[arg-type]

    def _encoder(item_separator: str, key_separator: str) -> Any:
        fixed: Any = (None, _refuse_value, encode_basestring, None, key_separator, item_separator)
        # Unsorted, no skipped keys, no NaN. The type stubs know only the last two.
        return make_encoder(*fixed, False, False, False)  # type: ignore[call-arg]
