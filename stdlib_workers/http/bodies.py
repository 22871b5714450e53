"""A request's body as the value that a function gets: JSON, forms and texts are parsed, anything else is base64.

What takes more than a moment happens on a thread, and how many values a JSON text holds is counted before it is parsed:
no request holds up another one.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from iii.protocol.shape import MAX_DEPTH, excess_of, is_moderate
from stdlib_workers.http.replies import Refusal

MAX_FIELDS = 1000
# Each `%41` of an urlencoded form is work.
MAX_ESCAPES = 200_000
MAX_FILES = 1000
# Bodies up to this take the loop less than a thread would.
INLINE_BYTES = 32 * 1024
# What of a form is read in one go: other requests run between two pieces.
FORM_PIECE = 32 * 1024
# RFC 9110: type and subtype, each a token.
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+\Z")
_FORM, _MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
# Texts whatever the tree they are registered in.
_TEXT = re.compile(
    r"text/|.*\+xml$|application/(x-)?(xml|ndjson|jsonl|jsonlines|json-seq|yaml|toml|sql|graphql|javascript)$"
)
_CHARSET = re.compile(
    r"utf-?(8|16|32)([-_]?[bl]e)?|(us-)?ascii|iso[-_]8859-\d+|latin-?1|windows-125\d|shift_jis|euc-(jp|kr)|gb(k|2312|18030)|big5|koi8-[ru]"
)
# A form is split in this, which has a character for each byte, and its texts are decoded one by one: what cannot be is
# named. Starlette would replace what it cannot decode.
_BYTES = "latin-1"
_OFFSET = re.compile(r" ?\(byte (\d+)\)")


# Makes the value of a file from what is told of it, whichever way a function gets the content, and the content.
FileValue = Callable[[dict[str, Any], bytes], Any]
_File = tuple[str, str, bytes]  # name, type and content


def inline(facts: dict[str, Any], content: bytes) -> dict[str, Any]:
    """Return a file as a value that holds its content."""
    return {**facts, "content_base64": b64encode(content).decode()}


@lru_cache(256)
def media_type(content_type: str) -> tuple[str, dict[str, str]]:
    """Return the type in lower case, and its parameters."""
    kind, parameters = parse_options_header(content_type)
    return kind.decode("latin-1").lower(), {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in parameters.items()
    }


async def parse_body(content_type: str, body: bytes, file_value: FileValue = inline) -> Any:
    """Return the value that a function gets as `body`, null for an empty one.

    `file_value` makes the value of each file of a form. Refusal 415 for a body that does not say what it is, 400 for
    one that is not what it says.
    """
    if not body:
        return None
    kind, parameters = media_type(content_type)
    if kind == _MULTIPART:
        return await _parse_multipart(content_type, parameters, body, file_value)
    if len(body) <= INLINE_BYTES:
        return _parse(kind, parameters, content_type, body)
    return await asyncio.to_thread(_parse, kind, parameters, content_type, body)


def is_parsed(content_type: str) -> bool:
    """Whether bodies of this kind become values; all others are bytes for whoever reads them."""
    kind = media_type(content_type)[0]
    return _is_json(kind) or kind in (_FORM, _MULTIPART)


def _is_json(kind: str) -> bool:
    return "application/json" in kind or kind.endswith("+json")


def _parse(kind: str, parameters: dict[str, str], content_type: str, body: bytes) -> Any:
    if _is_json(kind):
        return _parse_json(body)
    if not _MEDIA_TYPE.match(kind):
        text = f"a request with a body needs a content-type such as application/json, not {content_type!r}"
        raise Refusal(415, "UNSUPPORTED_MEDIA_TYPE", text)
    if kind == _FORM:
        return parse_form(body, parameters.get("charset"))
    if _TEXT.match(kind):
        return _decode(body, "the text", parameters.get("charset", "utf-8"))
    return inline({"content_type": kind, "size": len(body)}, body)


def _parse_json(body: bytes) -> Any:
    _decode(body, "the JSON")
    if len(body) > MAX_DEPTH and not is_moderate(body) and (excess := excess_of(body)):
        raise Refusal(400, "invalid_json", f"the body holds {excess}")
    try:
        # msgspec keeps an integer beyond 64 bits, which orjson would turn into a float without a word.
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        found = _OFFSET.search(str(error))
        text = f"the body is not JSON: {_OFFSET.sub('', str(error))}"
        offset = int(found[1]) if found else len(body)
        raise Refusal(400, "invalid_json", text, details={"offset": offset}) from None


def parse_form(body: bytes, charset: str | None = None) -> dict[str, Any]:
    """Return the fields of an urlencoded form; a name that comes several times has a list."""
    if body.count(b"%") > MAX_ESCAPES:
        text = f"the form holds more than {MAX_ESCAPES} escapes; send so much as multipart/form-data or JSON"
        raise Refusal(413, "PAYLOAD_TOO_LARGE", text)
    try:
        pairs = parse_qsl(body.decode(_BYTES), keep_blank_values=True, max_num_fields=MAX_FIELDS, encoding=_BYTES)
    except ValueError as error:
        raise Refusal(400, "invalid_body", f"the form cannot be read: {error}") from None
    return _collect(pairs, charset)


async def _parse_multipart(
    content_type: str, parameters: dict[str, str], body: bytes, file_value: FileValue
) -> dict[str, Any]:
    boundary = parameters.get("boundary", "")
    if f"--{boundary}--".encode("latin-1", "replace") not in body or not boundary:
        text = "the multipart body cannot be read: its boundary is missing, or its end"
        raise Refusal(400, "invalid_body", text)
    headers = Headers({"content-type": f"{content_type}; charset={_BYTES}"})
    parser = MultiPartParser(
        headers, _pieces(body), max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=len(body)
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refusal(400, "invalid_body", f"the multipart body cannot be read: {error.message}") from None
    pairs: list[tuple[str, str | _File]] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            kind = value.content_type or "application/octet-stream"
            pairs.append((name, (value.filename or "", kind, await value.read())))
        else:
            pairs.append((name, value))
    await form.close()
    return _collect(pairs, parameters.get("charset"), file_value)


async def _pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), FORM_PIECE):
        yield body[start : start + FORM_PIECE]
        await asyncio.sleep(0)


def _collect(
    pairs: Sequence[tuple[str, str | _File]], charset: str | None, file_value: FileValue = inline
) -> dict[str, Any]:
    """Return the fields of a form whose texts hold a character for each byte.

    They are in `charset`, or in the one that the field `_charset_` names, as browsers fill it (RFC 7578).
    """
    declared = charset or next(
        (value for name, value in pairs if name == "_charset_" and isinstance(value, str)), "utf-8"
    )

    def text(raw: str, what: str) -> str:
        return _decode(raw.encode(_BYTES), what, declared)

    fields: dict[str, list[Any]] = {}
    for raw_name, value in pairs:
        name = text(raw_name, f"the field name {raw_name!a}")
        if isinstance(value, str):
            found: Any = text(value, f"the field {name!r}")
        else:
            filename, kind, content = value
            facts = {"filename": text(filename, f"the file name of {name!r}"), "content_type": kind}
            found = file_value({**facts, "size": len(content)}, content)
        fields.setdefault(name, []).append(found)
    return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}


def _decode(body: bytes, what: str, charset: str = "utf-8") -> str:
    if not _CHARSET.fullmatch(charset.lower()):
        raise Refusal(415, "UNSUPPORTED_MEDIA_TYPE", f"the charset {charset!r} is not known; send UTF-8")
    try:
        return body.decode(charset)
    except UnicodeDecodeError as error:
        message = f"{what} in the body is not {charset.upper()}"
        raise Refusal(400, "invalid_body", message, details={"offset": error.start}) from None
