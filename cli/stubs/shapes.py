"""JSON Schema -> shapes that a typed language can say. Pure.

A shape admits everything that its schema admits, and sometimes more: what a type cannot say (a range, a pattern, a
condition, a foreign reference) is left out, and what is beyond the limits is `any`. Objects, and what a reference
points to, get names; so a type may contain itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

# Of one schema. More come of references that unfold without end.
MAX_OBJECTS = 500
MAX_DEPTH = 40
MAX_NODES = 20_000
_ANNOTATIONS = {
    *("$anchor", "$comment", "$defs", "$id", "$schema", "default", "definitions", "deprecated", "description"),
    *("examples", "readOnly", "title", "writeOnly"),
}
_OF_OBJECTS = ("properties", "required", "additionalProperties", "patternProperties", "propertyNames")
_OF_ARRAYS = ("items", "prefixItems", "contains")


@dataclass(frozen=True)
class Plain:
    """`any`, `never`, or a JSON type without parts: `null`, `boolean`, `integer`, `number`, `string`."""

    name: str


@dataclass(frozen=True)
class Literal:
    """One of these values; each is a text, an integer, a boolean or None."""

    values: tuple[str | int | bool | None, ...]


@dataclass(frozen=True)
class Array:
    """Any number of items."""

    item: Shape


@dataclass(frozen=True)
class Tuple:
    """An item for each place; `rest` are those behind, None if there may be none."""

    items: tuple[Shape, ...]
    rest: Shape | None


@dataclass(frozen=True)
class Map:
    """An object with any keys."""

    value: Shape


@dataclass(frozen=True)
class Union:
    """One of several shapes."""

    members: tuple[Shape, ...]


@dataclass(frozen=True)
class Ref:
    """A named shape."""

    name: str


@dataclass(frozen=True)
class Field:
    """One key of an object."""

    name: str
    shape: Shape
    is_required: bool
    description: str = ""
    default: str = ""  # as JSON, empty if there is none


@dataclass(frozen=True)
class Object:
    """An object with known keys; `rest` is what further keys hold, None if the schema names none."""

    fields: tuple[Field, ...]
    rest: Shape | None = None
    description: str = ""


Shape = Plain | Literal | Array | Tuple | Map | Union | Ref | Object
ANY = Plain("any")
NEVER = Plain("never")
NULL = Plain("null")


@dataclass
class Shapes:
    """The shape of one schema, and the named ones it refers to."""

    root: Shape
    named: dict[str, Shape] = field(default_factory=dict)

    def resolved(self, shape: Shape) -> Shape:
        """Return what a reference stands for; other shapes as they are."""
        while isinstance(shape, Ref):
            shape = self.named[shape.name]
        return shape


def shapes_of(schema: Any, name: str) -> Shapes:
    """Return the shapes of a schema; `name` begins the names of objects that have none themselves."""
    reader = _Reader(schema, name)
    root = reader.shape(schema, name)
    _break_circles(reader.named)
    return Shapes(root if not _is_circular(root, reader.named) else ANY, reader.named)


def parts(shape: Shape) -> Iterator[Shape]:
    """Yield the shapes directly inside of a shape."""
    if isinstance(shape, Array):
        yield shape.item
    elif isinstance(shape, Tuple):
        yield from shape.items
        if shape.rest is not None:
            yield shape.rest
    elif isinstance(shape, Map):
        yield shape.value
    elif isinstance(shape, Union):
        yield from shape.members
    elif isinstance(shape, Object):
        yield from (each.shape for each in shape.fields)
        if shape.rest is not None:
            yield shape.rest


def names_in(shape: Shape) -> set[str]:
    """Return the names that a shape refers to, at any depth."""
    found: set[str] = set()
    pending = [shape]
    while pending:
        each = pending.pop()
        if isinstance(each, Ref):
            found.add(each.name)
        pending += parts(each)
    return found


def renamed(shape: Shape, names: Mapping[str, str]) -> Shape:
    """Return the shape with other names in its references."""

    def of(part: Shape) -> Shape:
        return renamed(part, names)

    match shape:
        case Ref(name):
            shape = Ref(names.get(name, name))
        case Array(item):
            shape = Array(of(item))
        case Tuple(items, rest):
            shape = Tuple(tuple(map(of, items)), rest and of(rest))
        case Map(value):
            shape = Map(of(value))
        case Union(members):
            shape = Union(tuple(map(of, members)))
        case Object(fields, rest, description):
            shape = Object(
                tuple(replace(each, shape=of(each.shape)) for each in fields), rest and of(rest), description
            )
    return shape


def pascal_case(text: str) -> str:
    """`new order-line` -> `NewOrderLine`, a name for a type in any language; empty if nothing is left of the text."""
    words = re.findall(r"[A-Za-z0-9]+", text)
    name = "".join(word[0].upper() + word[1:] for word in words)
    return f"N{name}" if name[:1].isdigit() else name


def resolve_pointer(root: Any, reference: str) -> Any:
    """Return what a local reference (`#/$defs/Name`) points to, None if there is nothing."""
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return None
    target = root
    for part in reference[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(target, list) and key.isdigit() and int(key) < len(target):
            target = target[int(key)]
        else:
            target = target.get(key) if isinstance(target, dict) else None
    return target


def union_of(shapes: list[Shape]) -> Shape:
    """Return the shape of a value that has one of these shapes, without what another of them says already."""
    flat: list[Shape] = []
    for shape in shapes:
        flat += shape.members if isinstance(shape, Union) else [shape]
    if ANY in flat:
        return ANY
    literals = [value for shape in flat if isinstance(shape, Literal) for value in shape.values]
    members: list[Shape] = []
    for shape in flat:
        each = _literal(literals) if isinstance(shape, Literal) else shape
        is_covered = each == NEVER or (each == Plain("integer") and Plain("number") in flat)
        if each not in members and not is_covered:
            members.append(each)
    if not members:
        return NEVER
    return members[0] if len(members) == 1 else Union(tuple(members))


def _literal(values: list[str | int | bool | None]) -> Literal:
    # Python holds True and 1 for equal.
    unique = {(type(value), value): value for value in values}
    return Literal(tuple(unique.values()))


class _Reader:
    def __init__(self, schema: Any, name: str) -> None:
        self.named: dict[str, Shape] = {}
        self._schema = schema
        self._name = name
        self._by_pointer: dict[str, str] = {}  # reference -> name
        self._by_content: dict[str, str] = {}  # an object's schema as text -> name
        self._reserved = ""  # the name that the object which a reference points to gets
        self._depth = 0
        self._nodes = 0

    def shape(self, schema: Any, name: str) -> Shape:
        if schema is False:
            return NEVER
        self._nodes += 1
        if not isinstance(schema, dict) or self._depth > MAX_DEPTH or self._nodes > MAX_NODES:
            return ANY
        self._depth += 1
        try:
            return self._from_keywords(schema, name)
        finally:
            self._depth -= 1

    def _from_keywords(self, schema: dict[str, Any], name: str) -> Shape:
        if isinstance(schema.get("$ref"), str) and not schema.keys() - _ANNOTATIONS - {"$ref"}:
            return self._referred(schema["$ref"])
        if "$ref" in schema or isinstance(schema.get("allOf"), list):
            whole = self._flat(schema)
            # What cannot be put into one schema admits anything.
            return ANY if whole is None else self.shape(whole, name)
        if "const" in schema:
            return self._from_values([schema["const"]])
        if isinstance(schema.get("enum"), list):
            return self._from_values(schema["enum"])
        for word in ("anyOf", "oneOf"):
            if isinstance(schema.get(word), list):
                base = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
                options = (merge(base, option) if base.keys() - _ANNOTATIONS else option for option in schema[word])
                named = enumerate(options, 1)
                return union_of([self.shape(option, _titled(option, f"{name}{index}")) for index, option in named])
        return self._from_types(schema, name)

    def _referred(self, reference: str) -> Shape:
        if reference in self._by_pointer:
            return Ref(self._by_pointer[reference])
        target = resolve_pointer(self._schema, reference)
        if not isinstance(target, dict) or len(self.named) >= MAX_OBJECTS:
            return NEVER if target is False else ANY
        known = self._by_content.get(_text(target))
        if known is not None and not isinstance(target.get("type"), list):
            return Ref(known)
        last = "" if reference == "#" else reference.rpartition("/")[2]
        name = self._free(pascal_case(last) or self._name)
        self._by_pointer[reference] = name
        self.named[name] = ANY  # taken, until it is known
        self._reserved = "" if isinstance(target.get("type"), list) else name
        shape = self.shape(target, name)
        self._reserved = ""
        if shape != Ref(name):
            self.named[name] = shape
        return Ref(name)

    def _flat(self, schema: dict[str, Any]) -> Any:
        """Return the schema with the references and `allOf` at its top laid into it, None if they have no end."""
        whole: Any = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
        pending = [*schema.get("allOf", ())] if isinstance(schema.get("allOf"), list) else []
        if "$ref" in schema:
            pending.insert(0, {"$ref": schema["$ref"]})
        seen: set[str] = set()
        while pending:
            part = pending.pop(0)
            if (text := _text(part)) in seen:
                continue
            seen.add(text)
            if isinstance(part, dict) and ("$ref" in part or isinstance(part.get("allOf"), list)):
                more = [*part.get("allOf", ())] if isinstance(part.get("allOf"), list) else []
                if "$ref" in part:
                    more.append(resolve_pointer(self._schema, str(part["$ref"])))
                pending = [*more, *pending]
                part = {key: value for key, value in part.items() if key not in ("$ref", "allOf", *_ANNOTATIONS)}
            if len(seen) > MAX_DEPTH:
                return None
            whole = merge(whole, part)
        return whole

    def _from_values(self, values: list[Any]) -> Shape:
        plain: list[Any] = [value for value in values if value is None or isinstance(value, str | int)]
        others = [value for value in values if value is not None and not isinstance(value, str | int)]
        shapes: list[Shape] = [_literal(plain)] if plain else []
        for value in others:
            if isinstance(value, float):
                shapes.append(Plain("number"))
            else:
                shapes.append(Array(ANY) if isinstance(value, list) else Map(ANY))
        return union_of(shapes)

    def _from_types(self, schema: dict[str, Any], name: str) -> Shape:
        types = schema.get("type")
        if types is None:
            if any(word in schema for word in _OF_OBJECTS):
                types = "object"
            elif any(word in schema for word in _OF_ARRAYS):
                types = "array"
        listed = types if isinstance(types, list) else [types]
        return union_of([self._of_type(each, schema, name) for each in listed])

    def _of_type(self, type_: Any, schema: dict[str, Any], name: str) -> Shape:
        if type_ == "object":
            return self._object(schema, name)
        if type_ == "array":
            return self._array(schema, name)
        return Plain(type_) if type_ in ("null", "boolean", "integer", "number", "string") else ANY

    def _array(self, schema: dict[str, Any], name: str) -> Shape:
        items = schema.get("items", True)
        places = schema.get("prefixItems")
        if isinstance(items, list):  # how earlier drafts wrote it
            places, items = items, schema.get("additionalItems", True)
        most = schema.get("maxItems")
        if not isinstance(places, list) or not places or schema.get("minItems") != len(places):
            shapes = [self.shape(place, f"{name}{index}") for index, place in enumerate(places or (), 1)]
            return Array(union_of([*shapes, self.shape(items, f"{name}Item")]))
        is_closed = items is False or (isinstance(most, int) and most <= len(places))
        rest = None if is_closed else self.shape(items, f"{name}Item")
        return Tuple(tuple(self.shape(place, f"{name}{index}") for index, place in enumerate(places, 1)), rest)

    def _object(self, schema: dict[str, Any], name: str) -> Shape:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        required = [key for key in required if isinstance(key, str)] if isinstance(required, list) else []
        more = schema.get("additionalProperties")
        if schema.get("patternProperties"):
            more = True
        if not properties and not required and (more is not False or schema.get("propertyNames")):
            return Map(self.shape(True if more is None else more, f"{name}Value"))
        text = _text(schema)
        if text in self._by_content:
            return Ref(self._by_content[text])
        if len(self.named) >= MAX_OBJECTS:
            return Map(ANY)
        own = name if name == self._reserved else self._free(_titled(schema, name))
        self._reserved = ""
        self._by_content[text] = own
        self.named[own] = ANY  # taken, until it is known
        keys = dict.fromkeys([*properties, *required])
        fields = (
            self._field(key, properties.get(key, more in (False, None) or more), key in required, own) for key in keys
        )
        rest = None if more in (None, False) else self.shape(more, f"{own}Value")
        self.named[own] = Object(tuple(fields), rest, _words(schema))
        return Ref(own)

    def _field(self, key: str, schema: Any, is_required: bool, owner: str) -> Field:
        shape = self.shape(schema, f"{owner}{pascal_case(key) or 'Field'}")
        default = json.dumps(schema["default"]) if isinstance(schema, dict) and "default" in schema else ""
        return Field(key, shape, is_required, _words(schema), default)

    def _free(self, name: str) -> str:
        free, number = name, 2
        while free in self.named:
            free, number = f"{name}{number}", number + 1
        return free


def _titled(schema: Any, name: str) -> str:
    title = schema.get("title") if isinstance(schema, dict) else None
    return (pascal_case(title) if isinstance(title, str) else "") or name


def _words(schema: Any) -> str:
    text = schema.get("description") if isinstance(schema, dict) else None
    return text.strip() if isinstance(text, str) else ""


def _text(schema: Any) -> str:
    return json.dumps(schema, sort_keys=True)


def merge(one: Any, other: Any) -> Any:
    """Return a schema that admits at least what both schemas admit together."""
    if one is False or other is False:
        return False
    if not isinstance(one, dict):
        return other
    if not isinstance(other, dict):
        return one
    both = {**other, **one}
    for word, join in _JOINS.items():
        if word in one and word in other:
            both[word] = join(one[word], other[word])
    return both


def _both(one: Any, other: Any) -> Any:
    return one if one == other else {"allOf": [one, other]}


def _joined_properties(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {**other, **one, **{key: _both(one[key], other[key]) for key in one if key in other}}


def _common_types(one: Any, other: Any) -> list[Any]:
    ones = one if isinstance(one, list) else [one]
    others = other if isinstance(other, list) else [other]
    common = [each for each in ones if each in others or (each == "integer" and "number" in others)]
    return common + [each for each in others if each == "integer" and "number" in ones and each not in common]


# keyword -> what it is in a schema that admits what two schemas admit; of other keywords the first is taken
_JOINS: dict[str, Callable[[Any, Any], Any]] = {
    "properties": _joined_properties,
    "required": lambda one, other: list(dict.fromkeys([*one, *other])),
    "type": _common_types,
    "enum": lambda one, other: [value for value in one if value in other],
    "items": _both,
    "allOf": lambda one, other: [*one, *other],
}


def _break_circles(named: dict[str, Shape]) -> None:
    """Make `any` of names that stand for themselves and nothing more."""
    for name in named:
        if _is_circular(Ref(name), named):
            named[name] = ANY


def _is_circular(shape: Shape, named: Mapping[str, Shape]) -> bool:
    """Tell whether resolving a shape never gets to an end; what stands in a list or an object is resolved later."""
    pending, seen = [shape], set[str]()
    start = shape.name if isinstance(shape, Ref) else None
    while pending:
        each = pending.pop()
        if isinstance(each, Union):
            pending += each.members
        elif isinstance(each, Ref):
            if each.name in seen:
                if each.name == start:
                    return True
                continue
            seen.add(each.name)
            pending.append(named[each.name])
    return False
