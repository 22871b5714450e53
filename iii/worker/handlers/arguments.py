"""A function's parameters become the arguments of its trigger: for each name, where in an event its value stands.

The result is data (`{NAME: SOURCE}`), carried out by the worker that provides the trigger type; docs/handlers.md has
the rules. What cannot be decided raises `Undecided`, which says what to write instead. Pure.
"""

from __future__ import annotations

from iii.worker.functions.schema import schema_from_hint
from iii.worker.handlers.places import Body, Form, FromEvent, Place, place_of
from iii.worker.handlers.request import File, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from iii.worker.functions.signature import Signature

    Source = dict[str, Any]
    Schema = dict[str, Any]

_TEXT_TYPES = {"string", "integer", "number", "boolean"}
_WITHOUT_BODY = ("GET", "HEAD")
# Their scalars may stand in the body as well, so that a call from the terminal and one by JSON are the same.
_WITH_JSON = ("POST", "PUT", "PATCH")
# The parameter that gets the caller's metadata, whatever the trigger.
_METADATA = "metadata"
# A parameter of this name gets the event whole.
_WHOLE = "payload"


class Undecided(TypeError):
    """A parameter of which its annotation and its name do not say where its value comes from."""


class EventParts:
    """What an event of one trigger type has: parts by the parameter names that stand for them, and its value.

    `value` is the dotted name of what the event is about (a state's new value), empty when that is the event itself,
    None when there is none.
    """

    def __init__(self, value: str | None, /, *same: str, **parts: str) -> None:
        self.value = value
        self.names = {**{name: name for name in same}, **parts}


EVENTS = {
    "state": EventParts("new_value", "event_type", "scope", "key", "old_value", "new_value"),
    "stream": EventParts(
        "event.data", "timestamp", "event", stream_name="streamName", group_id="groupId", item_id="id"
    ),
    "cron": EventParts(None, "job_id", "scheduled_time", "actual_time", "tick_id", "missed"),
    "websocket": EventParts(
        None,
        *("event", "connection_id", "data", "data_base64", "response", "code", "reason"),
        *("path_params", "query_params", "headers"),
    ),
}
# Of any other trigger type nothing is known: its event is its value.
_ANY_EVENT = EventParts("")


class Parameter:
    """One parameter: its annotation, the place that it names, and what JSON its type is."""

    def __init__(self, name: str, hint: Any, default: Any) -> None:
        self.name = name
        self.hint = hint
        self.is_required = default is ...
        if isinstance(default, Place):
            kind = type(default).__name__
            raise Undecided(
                f"{name} has {kind} as its default; write {name}: Annotated[TYPE, {kind}({str(default)!r})]"
            )
        self.place = place_of(hint)
        self.schema = schema_from_hint(hint)
        self.is_model = _is_object(self.schema)

    def source(self, location: str, name: str = "", *, is_text: bool = False) -> Source:
        """Return where the value is; of a text also what it is read as."""
        source: Source = {"in": location}
        if name:
            source["name"] = str(name)  # a plain one: fast JSON libraries take no other
        if is_text:
            source |= self._text_type(location)
        if self.is_required:
            source["required"] = True
        return source

    def _text_type(self, location: str) -> Source:
        if self.is_model:
            raise Undecided(
                f"{self.name} is an object, which no {location} holds; make it the body (Annotated[TYPE, Body()]), "
                "or take its fields as parameters"
            )
        types = _text_types(self.schema)
        if types == {"array"}:
            items = _text_types(_items_of(self.schema))
            return {"type": "array", "items": self._only(items, location)} if items else {"type": "array"}
        return {"type": self._only(types, location)} if types else {}

    def _only(self, types: set[str], location: str) -> str:
        """Return the type that a text is read as where several are admitted; a text is always one."""
        if "string" in types:
            return "string"
        if types == {"integer", "number"}:
            return "number"
        if len(types) == 1 and types <= _TEXT_TYPES:
            return next(iter(types))
        body = "make it the body (Annotated[TYPE, Body()])"
        if types == {"array"}:
            raise Undecided(f"{self.name} is a list of lists, which no {location.partition('_')[0]} holds; {body}")
        listed = ", ".join(sorted(types))
        raise Undecided(
            f"{self.name} may be one of {listed}, of which a text can be read as only one; write str and convert it, "
            f"or {body}"
        )


def _is_object(schema: Schema | None) -> bool:
    """Tell whether values of this schema are objects, or lists of them; null beside them does not count."""
    if not schema:
        return False
    if "anyOf" in schema:
        members = [member for member in schema["anyOf"] if member.get("type") != "null"]
        return bool(members) and all(map(_is_object, members))
    types = schema.get("type")
    if isinstance(types, list):
        types = next(iter({*types} - {"null"}), None) if len({*types} - {"null"}) == 1 else None
    return types == "object" or "$ref" in schema or (types == "array" and _is_object(_items_of(schema)))


def _items_of(schema: Schema | None) -> Schema | None:
    for member in (schema or {}).get("anyOf", [schema]):
        if member and "prefixItems" in member:
            return {"anyOf": member["prefixItems"]}
        if member and "items" in member:
            return dict(member["items"])
    return None


def _text_types(schema: Schema | None) -> set[str]:
    """Return the JSON types that a schema admits beside null, empty for any."""
    if not schema:
        return set()
    if "anyOf" in schema:
        return {kind for member in schema["anyOf"] for kind in _text_types(member)}
    types = schema.get("type")
    if types is None:
        return {_type_of(value) for value in schema.get("enum", ()) if value is not None}
    return {*types} - {"null"} if isinstance(types, list) else {types} - {"null"}


def _type_of(value: object) -> str:
    return {bool: "boolean", int: "integer", float: "number"}.get(type(value), "string")


def parameters_from(signature: Signature) -> list[Parameter]:
    """Return the parameters that a trigger has to fill."""
    return [
        Parameter(name, signature.annotations.get(name), signature.defaults.get(name, ...))
        for name in signature.names
        if name != _METADATA
    ]


def _with_constants(
    parameters: list[Parameter], constants: Mapping[str, object]
) -> tuple[dict[str, Source], list[Parameter]]:
    """Return the arguments that the decorator gives itself, and the parameters that are left."""
    names = [parameter.name for parameter in parameters]
    for name in constants:
        if name not in names:
            raise Undecided(f"arguments has {name}, which is no parameter; there are: {', '.join(names) or 'none'}")
    given = {name: {"value": value} for name, value in constants.items() if not isinstance(value, Place)}
    for parameter in parameters:
        place = constants.get(parameter.name)
        if isinstance(place, Place):
            parameter.place = place
    return given, [parameter for parameter in parameters if parameter.name not in given]


# http


def http_arguments(
    parameters: list[Parameter], path: str, method: str, constants: Mapping[str, object]
) -> dict[str, Source]:
    """Return the sources of an http trigger. Undecided says of a parameter, or a name of the path, what is wrong."""
    in_path = names_in_path(path)
    arguments, open_parameters = _with_constants(parameters, constants)
    bodies = [each for each in open_parameters if _is_body(each, in_path)]
    fields = [each for each in open_parameters if _is_field(each)]
    if bodies and method in _WITHOUT_BODY:
        raise Undecided(
            f"{bodies[0].name} would be the body, which {method} requests have not; use post, put or patch, or take "
            "its fields as parameters of the query"
        )
    if bodies and fields:
        raise Undecided(
            f"{bodies[0].name} would be a JSON body and {fields[0].name} a field of a form; use one of them"
        )
    scalars = "query_or_body" if method in _WITH_JSON and not bodies and not fields else "query"
    for each in open_parameters:
        if each in bodies:
            name = str(each.place or "") or (each.name if len(bodies) > 1 else "")
            arguments[each.name] = each.source("body", name)
        else:
            arguments[each.name] = _http_source(each, "path" if each.name in in_path else scalars)
    filled = {source.get("name") for source in arguments.values() if source.get("in") == "path"}
    unused = [name for name in in_path if name not in filled and name not in arguments]
    if unused and not any(_accepts(each.hint, Request) for each in parameters):
        raise Undecided(f"the path has {{{unused[0]}}}, and no parameter of that name; add {unused[0]}: str")
    return arguments


def _http_source(parameter: Parameter, location: str) -> Source:
    """Return the source of a parameter that is no body; `location` is where its name alone would put it."""
    place = parameter.place
    if _accepts(parameter.hint, Request):
        return parameter.source("request")
    if _accepts(parameter.hint, File):
        source = parameter.source("file", place or parameter.name)
        return {**source, "type": "array"} if "array" in _text_types(parameter.schema) else source
    if isinstance(place, FromEvent):
        return _part_source(parameter, place)
    if place is None:
        return parameter.source(location, parameter.name, is_text=True)
    # Names of headers have dashes, and no case.
    name = (place or parameter.name.replace("_", "-")).lower() if place.location == "header" else place
    return parameter.source(place.location, name or parameter.name, is_text=True)


def names_in_path(path: str) -> list[str]:
    """Return the names in a path: of `{name}`, `{*name}`, `:name` and `*name` segments."""
    names = []
    for segment in path.split("/"):
        if segment.startswith("{") and segment.endswith("}"):
            names.append(segment[1:-1].lstrip("*"))
        elif segment.startswith((":", "*")):
            names.append(segment[1:])
    return [name for name in names if name]


def _is_body(parameter: Parameter, in_path: Iterable[str]) -> bool:
    if parameter.place is not None:
        return isinstance(parameter.place, Body)
    special = _accepts(parameter.hint, Request) or _accepts(parameter.hint, File)
    return parameter.is_model and parameter.name not in in_path and not special


def _is_field(parameter: Parameter) -> bool:
    return isinstance(parameter.place, Form) or _accepts(parameter.hint, File)


def _accepts(hint: Any, cls: type) -> bool:
    """Tell whether an annotation is this class, or has it in a union, a list or an Annotated."""
    members = getattr(hint, "__args__", ())
    if hasattr(hint, "__metadata__"):
        members = (hint.__origin__,)
    return hint is cls or any(_accepts(member, cls) for member in members)


# Any other event


def event_arguments(
    parameters: list[Parameter], trigger_type: str, path: str, constants: Mapping[str, object]
) -> dict[str, Source]:
    """Return the sources of a trigger that is not http. Undecided says of a parameter what is wrong.

    `path` is a websocket's, whose names are parts of its events.
    """
    parts = EVENTS.get(trigger_type, _ANY_EVENT)
    names = {**parts.names, **{name: f"path_params.{name}" for name in names_in_path(path)}}
    arguments, rest = _with_constants(parameters, constants)
    undecided = []
    for each in rest:
        if isinstance(each.place, FromEvent):
            arguments[each.name] = _part_source(each, each.place)
        elif each.place is not None or _accepts(each.hint, Request) or _accepts(each.hint, File):
            if each.is_required:
                raise Undecided(
                    f"{each.name} comes from an http request, and a {trigger_type} event has none; give it a default, "
                    f"or a value in arguments={{{each.name!r}: ...}}"
                )
        elif each.name in names:
            arguments[each.name] = _part_source(each, names[each.name])
        elif each.name == _WHOLE:
            arguments[each.name] = each.source("event")
        else:
            undecided.append(each)
    return {**arguments, **_value_arguments(undecided, trigger_type, parts)}


def _part_source(parameter: Parameter, name: str) -> Source:
    """A part may be a text that the parameter wants as a number: keys and ids are texts."""
    source = parameter.source("event", name)
    types = _text_types(parameter.schema)
    return {**source, "type": next(iter(types))} if len(types) == 1 and types <= _TEXT_TYPES - {"string"} else source


def _value_arguments(parameters: list[Parameter], trigger_type: str, parts: EventParts) -> dict[str, Source]:
    """Return the sources of what the event is about: one model is the value, other parameters are keys of it."""
    if parts.value is None:
        for each in parameters:
            if each.is_required:
                raise Undecided(
                    f"a {trigger_type} event has no {each.name}; its parts are {', '.join(parts.names)}. Give it a "
                    f"default, or a value in arguments={{{each.name!r}: ...}}"
                )
        return {}
    models = [each for each in parameters if each.is_model]
    untyped = [each for each in parameters if not each.schema]
    candidates = models or untyped
    arguments = {}
    for each in parameters:
        is_value = candidates == [each]
        name = parts.value if is_value else f"{parts.value}.{each.name}" if parts.value else each.name
        arguments[each.name] = each.source("event", name)
    return arguments
