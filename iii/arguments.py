"""The arguments of a function, made from an event: `payload = "arguments"` in a trigger's config, read and carried out.

Every provider of a trigger type reads the same words: `arguments` maps each name to its source in the event, and the
function gets `{name: value}` as its payload. A source that the event does not have is left out, so that the function's
default applies. Texts of an http request become the type that the source names; whether a value fits the function is
for the function's own schema to say. Pure. Public: standard workers may import it.
"""

from __future__ import annotations

import json
import math
import re

from iii.config_schema import brief, mistakes, shown
from iii.suggestions import did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    Find = Callable[[Any], Any]
    Convert = Callable[[Any], Any]

# Trigger types whose events are requests, with the parts that OpenAPI names.
REQUEST_TYPES = ("http", "websocket")
REQUEST_SOURCES = ("path", "query", "header", "cookie", "form", "file", "body", "query_or_body", "request")
_NAMELESS = ("body", "event", "request", "value")  # without a name they are the whole
_TYPES = ["string", "integer", "number", "boolean", "array"]
_SOURCE: dict[str, Any] = {
    "type": "object",
    "title": 'a table such as {"in": "event"}',
    "properties": {
        "in": {"enum": ["event", *REQUEST_SOURCES], "description": "The part of the event that holds the value."},
        "name": {
            "type": "string",
            "pattern": ".",
            "description": "Its name there, by default the argument's; of an event a path such as `event.data`.",
        },
        "type": {"enum": _TYPES, "description": "What the text of a request becomes."},
        "items": {"enum": _TYPES[:-1], "description": "What each text of an array becomes."},
        "required": {"type": "boolean", "description": "Whether a request without it is refused."},
        "value": {"description": "A constant, in place of the others."},
    },
    "additionalProperties": False,
}
# The keys of a trigger's config that say what its function gets, as JSON Schema properties; every type has them.
CONFIG_PROPERTIES: dict[str, Any] = {
    "payload": {"enum": ["event", "arguments"], "default": "event", "description": "What the function gets."},
    "arguments": {
        "type": "object",
        "description": 'With payload "arguments": where in the event the value of each argument is.',
        "additionalProperties": _SOURCE,
    },
}
# More is no function's signature, and each costs every event a moment.
MAX_ARGUMENTS = 256
# Mistakes that one answer lists, and characters of a wrong value that it shows.
MAX_MISTAKES = 32
MAX_SHOWN = 60

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}\Z")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?\Z")
_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_EXPECTED = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_LONG_NUMBER = 10**MAX_SHOWN  # Python does not write out every number
_STEPS = re.compile(r"[.\[\]]+")
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Any = _Absent()


class Mistake:
    """Why an event gives no arguments: the place in it, what was expected, and the value that was there instead.

    `got` is ABSENT for a value that is missing. `hides` says that the value is not to be shown; values under a secret
    name, and long ones, never are. `text` replaces the sentence that the two make.
    """

    __slots__ = ("expected", "got", "place", "text")

    def __init__(self, place: str, expected: str, got: Any = ABSENT, *, text: str = "", hides: bool = False) -> None:
        shown = _showable(place, got, hides=hides)
        is_whole = shown is got
        self.place = place
        self.expected = expected
        self.got = shown
        words = "nothing" if got is ABSENT else json.dumps(got, ensure_ascii=False) if is_whole else shown
        self.text = f"{place}: {text}" if text and is_whole else f"{place}: expected {expected}, got {words}"

    def __str__(self) -> str:
        return self.text

    @property
    def fields(self) -> dict[str, Any]:
        """The mistake as a JSON object: `path`, `expected`, and `got` unless the value is missing."""
        got = {} if self.got is ABSENT else {"got": self.got}
        return {"path": self.place, "expected": self.expected, **got}


def _showable(place: str, value: Any, *, hides: bool) -> Any:
    """Return a value as an answer may repeat it: the value itself unless it is secret, long, or not a single one."""
    from iii.redaction import Redactor, is_secret_field  # its patterns take a moment to load, and mistakes are few

    shown = value
    if isinstance(value, dict | list):
        shown = "an object" if isinstance(value, dict) else "a list"
    elif value is not ABSENT and (hides or any(map(is_secret_field, _STEPS.split(place)))):
        shown = "another value"
    elif isinstance(value, str) and len(value) > MAX_SHOWN:
        shown = f"a text of {len(value)} characters"
    elif isinstance(value, str) and Redactor().text(value) != value:
        shown = "another text"
    elif isinstance(value, int) and abs(value) >= _LONG_NUMBER:
        shown = "a number of many digits"
    return shown


class _Unfit(Exception):
    """A text is none of the type it should have; `item` is its index in a list."""

    def __init__(self, expected: str, got: Any, item: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.got = got
        self.item = item


class _Source:
    """Where one argument is: `find` takes it out of an event, and `place` names it in mistakes."""

    __slots__ = ("expected", "find", "hides", "in_body", "is_required", "name", "place")

    def __init__(self, name: str, source: Mapping[str, Any]) -> None:
        kind, value_type = source.get("in", "value"), source.get("type")
        wire = source.get("name", "" if kind in _NAMELESS else name)
        self.name = name
        self.place = f"{'query' if kind == 'query_or_body' else kind}.{wire}" if wire else kind
        self.in_body = f"body.{wire}" if kind == "query_or_body" else ""
        self.hides = kind in ("header", "cookie")
        self.is_required = source.get("required") is True
        self.expected = _EXPECTED.get(value_type or "", "a value")
        if kind == "file":
            self.expected = "a list of files" if value_type == "array" else "a file"
        self.find = _finder(source, kind, wire)

    def place_in(self, event: Any) -> str:
        """Return where the value is in this event, of the two places that it may have."""
        wire = self.place.partition(".")[2]
        is_in_body = self.in_body and wire not in _part(event, "query_params") and _part(event, "body")
        return self.in_body if is_in_body else self.place


class Arguments:
    """The sources of a function's arguments, by name, as a config that `check_config` has accepted gives them."""

    def __init__(self, sources: Mapping[str, Mapping[str, Any]]) -> None:
        self.sources = sources
        self._sources = {name: _Source(name, source) for name, source in sources.items()}
        self._body_keys = _body_keys(sources)

    def read(self, event: Any) -> tuple[dict[str, Any], list[Mistake]]:
        """Return the arguments that an event gives, and what is wrong with it. Raises nothing for any JSON value.

        With a mistake the function is not to be called.
        """
        arguments: dict[str, Any] = {}
        found: list[Mistake] = []
        for name, source in self._sources.items():
            try:
                value = source.find(event)
            except _Unfit as unfit:
                place = f"{source.place_in(event)}{unfit.item}"
                found.append(Mistake(place, unfit.expected, unfit.got, hides=source.hides))
                continue
            if value is not ABSENT:
                arguments[name] = value
            elif source.is_required:
                found.append(Mistake(source.place_in(event), source.expected))
        if self._body_keys is not None:
            found += _wrong_keys(event, self._body_keys)
        return arguments, found[:MAX_MISTAKES]

    def mistake_from(self, event: Any, details: Mapping[str, Any], message: str) -> Mistake:
        """Return why the function's schema refused the arguments of an event, by the place there and not the name.

        `details` and `message` are those of the error `invalid_payload`.
        """
        path = str(details.get("path", "$")).lstrip("$.")
        name = _STEPS.split(path)[0]
        source = self._sources.get(name)
        place = path or "the arguments" if source is None else f"{source.place_in(event)}{path[len(name) :]}"
        got, wanted = details.get("got", ABSENT), details.get("expected")
        if got is None and message.endswith(" is missing"):
            return Mistake(place, source.expected if source is not None and path == name else str(wanted))
        # Behind the function's id, which may end in the argument's name.
        named = rf"(?:^|: )(?:\$\.)?{re.escape(path or 'the payload')}"
        words = re.search(rf"{named} must be (.*), got ", message, re.DOTALL)
        rest = re.search(rf"{named}: (.*)", message, re.DOTALL)
        text = rest[1] if rest and not words else ""
        if wanted is False:  # it lists keys, and quotes no value
            return Mistake(place, "no other keys", text=text)
        # Of what the function's own class refuses the schema says nothing.
        judge = "function takes" if text and text == wanted else "schema says"
        expected = words[1] if words else _EXPECTED.get(str(wanted), f"what the {judge}")
        return Mistake(place, expected, got, text=text, hides=source is not None and source.hides)


def _body_keys(sources: Mapping[str, Mapping[str, Any]]) -> frozenset[str] | None:
    """Return the keys of a body that is read key by key, None for any other: a misspelled key is not to be lost."""
    keys = []
    for name, source in sources.items():
        kind = source.get("in")
        if kind in ("request", "event", "form", "file"):
            return None
        if kind in ("body", "query_or_body"):
            keys.append(source.get("name", name if kind == "query_or_body" else ""))
    return frozenset(keys) if keys and all(keys) else None


def _wrong_keys(event: Any, known: frozenset[str]) -> Iterator[Mistake]:
    body = event.get("body") if isinstance(event, dict) else None
    if body is None:
        return
    if not isinstance(body, dict):
        yield Mistake("body", "an object", body)
    elif not body.keys() <= known:
        names = ", ".join(sorted(known))
        for key in sorted(body.keys() - known):
            yield Mistake(f"body.{brief(key)}", f"one of {names}", text=f"there is no such key; there are {names}")


def arguments_from(config: Any) -> Arguments | None:
    """Return the sources of arguments in a binding's config, None where its function gets the event itself."""
    if not isinstance(config, dict) or config.get("payload") != "arguments":
        return None
    return Arguments(config.get("arguments") or {})


def check_config(config: Any, trigger_type: str) -> None:
    """Check what a binding's config says about arguments. ValueError names the key and the way out.

    Config of another's trigger type that means something else by these words passes.
    """
    if not isinstance(config, dict):
        return
    payload, arguments = config.get("payload", "event"), config.get("arguments")
    if payload == "arguments":
        found = [*_mistakes_in(arguments, trigger_type)]
        if found:
            raise ValueError("; ".join(found[:MAX_MISTAKES]))
    elif _is_mapping(arguments):
        way_out = 'without it the function gets the event, and "arguments" says nothing'
        raise ValueError(f'"arguments" needs payload = "arguments", not {shown(payload)}; {way_out}')
    elif payload != "event" and isinstance(payload, str) and (hint := did_you_mean(payload, ("event", "arguments"))):
        raise ValueError(f"payload must be event or arguments, not {shown(payload)}; {hint}")


def _is_mapping(arguments: Any) -> bool:
    tables = arguments.values() if isinstance(arguments, dict) else ()
    return bool(tables) and all(isinstance(table, dict) and table.keys() & {"in", "value"} for table in tables)


def _mistakes_in(arguments: Any, trigger_type: str) -> Iterator[str]:
    if arguments is None or (isinstance(arguments, dict) and len(arguments) > MAX_ARGUMENTS):
        count = "nothing" if arguments is None else f"{len(arguments)} names"
        yield f'payload = "arguments" needs "arguments", a table of 0 to {MAX_ARGUMENTS} names; got {count}'
        return
    kinds = ["event", *REQUEST_SOURCES] if trigger_type in REQUEST_TYPES else ["event"]
    source_schema = {**_SOURCE, "properties": {**_SOURCE["properties"], "in": {"enum": kinds}}}
    schema = {"properties": {"arguments": {"type": "object", "additionalProperties": source_schema}}}
    found = [str(mistake) for mistake in mistakes({"arguments": arguments}, schema)]
    yield from found
    if found:
        return
    for name, source in arguments.items():
        place, kind = f"arguments.{brief(name)}", source.get("in")
        if ("value" in source) is (kind is not None) or ("value" in source and len(source) > 1):
            yield f'{place} needs "in", one of {", ".join(kinds)}, or "value" alone, which is a constant'
        elif kind == "request" and "name" in source:
            yield f'{place}: "request" is the whole request and has no name; use path, query, header or body'
        elif kind == "file" and source.get("type", "array") != "array":
            yield f'{place}: type of a file can only be "array", for several files; leave it out'


# Where values are. A finder takes an event and returns the value, ABSENT without one; _Unfit for a wrong text.


def _finder(source: Mapping[str, Any], kind: str, wire: str) -> Find:
    if "value" in source:
        constant = source["value"]
        return lambda _: constant
    if kind in ("event", "request"):
        # Keys and ids are texts; a list is never one.
        return _as_type(_in_event(wire), _CONVERTERS.get(source.get("type", "")), is_list=False)
    if kind == "body":
        return _in_body(wire)
    is_list = source.get("type") == "array"
    convert = _file if kind == "file" else _CONVERTERS.get(source.get("items" if is_list else "type", ""))
    if kind == "query_or_body":
        return _in_query_or_body(wire, convert, is_list=is_list)
    return _as_type(_TEXTS[kind](wire, is_list), convert, is_list=is_list)


def _as_type(find: Find, convert: Convert | None, *, is_list: bool) -> Find:
    if convert is None:
        return find
    if is_list:
        return lambda event: _each(find(event), convert)

    def find_converted(event: Any) -> Any:
        value = find(event)
        return value if value is ABSENT else convert(value)

    return find_converted


def _each(values: Any, convert: Convert) -> Any:
    if not isinstance(values, list):
        return values
    converted = []
    for index, value in enumerate(values):
        try:
            converted.append(convert(value))
        except _Unfit as unfit:
            raise _Unfit(unfit.expected, unfit.got, f"[{index}]") from None
    return converted


def _part(event: Any, part: str) -> dict[str, Any]:
    value = event.get(part) if isinstance(event, dict) else None
    return value if isinstance(value, dict) else {}


def _in_path(name: str, is_list: bool) -> Find:
    def find(event: Any) -> Any:
        value = _part(event, "path_params").get(name, ABSENT)
        return value.split("/") if is_list and isinstance(value, str) else value

    return find


def _in_query(name: str, is_list: bool) -> Find:
    part = "query_params_all" if is_list else "query_params"
    return lambda event: _part(event, part).get(name, ABSENT)


def _in_header(name: str, is_list: bool) -> Find:
    name = name.lower()

    def find(event: Any) -> Any:
        value = _part(event, "headers").get(name, ABSENT)
        return [each.strip() for each in value.split(",")] if is_list and isinstance(value, str) else value

    return find


def _in_cookie(name: str, is_list: bool) -> Find:
    def find(event: Any) -> Any:
        header = _part(event, "headers").get("cookie")
        for pair in header.split(";") if isinstance(header, str) else ():
            key, separator, value = pair.partition("=")
            if separator and key.strip() == name:
                text = value.strip().removeprefix('"').removesuffix('"')
                return [text] if is_list else text
        return ABSENT

    return find


def _in_form(name: str, is_list: bool) -> Find:
    def find(event: Any) -> Any:
        value = _part(event, "body").get(name, ABSENT)
        if value is ABSENT or isinstance(value, list) is is_list:
            return value
        return [value] if is_list else value[-1] if value else ABSENT

    return find


def _in_body(name: str) -> Find:
    if name:
        return lambda event: _part(event, "body").get(name, ABSENT)

    def find(event: Any) -> Any:
        body = event.get("body") if isinstance(event, dict) else None
        return ABSENT if body is None else body

    return find


def _in_query_or_body(name: str, convert: Convert | None, *, is_list: bool) -> Find:
    in_query = _as_type(_in_query(name, is_list), convert, is_list=is_list)
    in_form = _as_type(_in_form(name, is_list), convert, is_list=is_list)
    in_body = _in_body(name)

    def find(event: Any) -> Any:
        value = in_query(event)
        if value is not ABSENT:
            return value
        media_type = _part(event, "headers").get("content-type")
        is_form = isinstance(media_type, str) and media_type.lower().startswith(_FORMS)
        return in_form(event) if is_form else in_body(event)

    return find


def _in_event(name: str) -> Find:
    steps = name.split(".") if name else []

    def find(event: Any) -> Any:
        for step in steps:
            event = event.get(step, ABSENT) if isinstance(event, dict) else ABSENT
        return event

    return find


_TEXTS: dict[str, Callable[[str, bool], Find]] = {
    "path": _in_path,
    "query": _in_query,
    "header": _in_header,
    "cookie": _in_cookie,
    "form": _in_form,
    "file": _in_form,
}


# Texts to values. What is no text has its type already: a form's name in JSON, judged by the function's schema.


def _integer(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not _INTEGER.match(value):
        raise _Unfit(_EXPECTED["integer"], value)
    return int(value)


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if _INTEGER.match(value):
        return int(value)
    number = float(value) if _NUMBER.match(value) else math.inf
    if not math.isfinite(number):
        raise _Unfit(_EXPECTED["number"], value)
    return number


def _boolean(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.lower() not in _BOOLEANS:
        raise _Unfit(_EXPECTED["boolean"], value)
    return _BOOLEANS[value.lower()]


def _file(value: Any) -> Any:
    if not isinstance(value, dict):
        raise _Unfit("a file", value)
    return value


_CONVERTERS: dict[str, Convert] = {"integer": _integer, "number": _number, "boolean": _boolean}
