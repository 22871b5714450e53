"""A request's body as a JSON value: JSON, forms and plain text are parsed, anything else is raw. Pure."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import orjson
from multipart import (  # type: ignore[import-untyped]  # it has no types
    MultipartError,
    MultipartParser,
    parse_options_header,
)

from stdlib_workers.http.failures import Refusal

MAX_FIELDS = 1000
MAX_DEPTH = 64
# RFC 9110: type and subtype, each a token.
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+\Z")


@dataclass(frozen=True, slots=True)
class File:
    """A file of a multipart form."""

    name: str
    kind: str
    content: bytes

    @property
    def facts(self) -> dict[str, Any]:
        """What a function is told of it, whichever way it gets the content."""
        return {"filename": self.name, "content_type": self.kind, "size": len(self.content)}


FileValue = Callable[[File], Any]


def inline(file: File) -> dict[str, Any]:
    """Return a file as a value that holds its content."""
    return {**file.facts, "content_base64": b64encode(file.content).decode()}


def parse_body(content_type: str, body: bytes, file_value: FileValue = inline) -> Any:
    """Return the value that a function gets as `body`, null for none and for a kind that is not parsed.

    `file_value` makes the value of each file of a form. Refusal 415 for a body that does not say what it is, 400 for
    one that is not what it says.
    """
    if not body:
        return None
    kind, options = parse_options_header(content_type)
    kind = kind.lower()
    if not _MEDIA_TYPE.match(kind):
        text = f"a request with a body needs a content-type such as application/json, not {content_type!r}"
        raise Refusal(415, "UNSUPPORTED_MEDIA_TYPE", text)
    if _is_json(kind):
        return _parse_json(body)
    if kind == "application/x-www-form-urlencoded":
        return parse_form(body)
    if kind == "multipart/form-data":
        return _parse_multipart(body, options.get("boundary", ""), file_value)
    return _decode(body, "the text") if kind.startswith("text/") else None


def is_parsed(content_type: str) -> bool:
    """Whether bodies of this kind become values; all others are bytes for whoever reads them."""
    kind = parse_options_header(content_type)[0].lower()
    return _is_json(kind) or kind in ("application/x-www-form-urlencoded", "multipart/form-data")


def _is_json(kind: str) -> bool:
    return "application/json" in kind or kind.endswith("+json")


def _parse_json(body: bytes) -> Any:
    _decode(body, "the JSON")
    try:
        # msgspec keeps an integer beyond 64 bits, which orjson would turn into a float without a word.
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _bad_json(body, error) from None
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _depth_exceeds(value, MAX_DEPTH):
        raise Refusal(400, "invalid_json", f"the body is nested deeper than {MAX_DEPTH} levels")
    return value


def _bad_json(body: bytes, error: Exception) -> Refusal:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as found:
        text = body.decode()[: found.pos]
        offset = len(text.encode())
        return Refusal(400, "invalid_json", f"the body is not JSON: {found}", details={"offset": offset})
    return Refusal(400, "invalid_json", f"the body is not JSON: {error}")


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _children(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def parse_form(body: bytes) -> dict[str, Any]:
    """Return the fields of an urlencoded form; a name that comes several times has a list."""
    try:
        pairs = parse_qsl(_decode(body, "the form"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise Refusal(400, "invalid_body", f"the form cannot be read: {error}") from None
    return _collect(pairs)


def _parse_multipart(body: bytes, boundary: str, file_value: FileValue) -> dict[str, Any]:
    from io import BytesIO  # only uploads need it

    if not boundary:
        raise Refusal(400, "invalid_body", "the content-type multipart/form-data needs a boundary")
    try:
        parser = MultipartParser(
            BytesIO(body), boundary, len(body), memory_limit=len(body) + 1, spool_limit=len(body) + 1, strict=True
        )
        parts = [(part.name, _part_value(part, file_value)) for part in parser]
    except (MultipartError, UnicodeDecodeError) as error:
        raise Refusal(400, "invalid_body", f"the multipart body cannot be read: {error}") from None
    return _collect(parts)


def _part_value(part: Any, file_value: FileValue) -> Any:
    if part.filename is None:
        return part.value
    return file_value(File(part.filename, part.content_type, part.raw))


def _collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, list[Any]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}


def _decode(body: bytes, what: str) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        message = f"{what} in the body is not UTF-8"
        raise Refusal(400, "invalid_body", message, details={"offset": error.start}) from None
