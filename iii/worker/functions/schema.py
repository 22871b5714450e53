"""Type hints to JSON Schema (draft 2020-12), with the descriptions that docstrings hold.

Builtins, Optional, Union, Literal, list, tuple, set, dict, TypedDict, dataclasses, Enum, dates, UUID, Annotated;
pydantic models and msgspec Structs describe themselves. A hint that says nothing (`Any`, a foreign class) gives
None: the function then has no format and is not checked. Pure, and imports no module for the classes it knows: a class
of a module that is not loaded cannot be met.
"""

from __future__ import annotations

import sys

from iii.worker.codec.stdlib_json import is_subclass
from iii.worker.functions.signature import UnresolvedAnnotation, resolve_hints, way_out_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from iii.worker.functions.signature import Signature

    Schema = dict[str, Any]

_SECTION_HEADS = ("args:", "arguments:", "attributes:", "parameters:")
DRAFT = "https://json-schema.org/draft/2020-12/schema"

_SIMPLE: dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    None: {"type": "null"},
    type(None): {"type": "null"},
    dict: {"type": "object"},
    list: {"type": "array"},
    tuple: {"type": "array"},
    set: {"type": "array", "uniqueItems": True},
    frozenset: {"type": "array", "uniqueItems": True},
    bytes: {"type": "string", "contentEncoding": "base64"},
}
_KNOWN_CLASSES = {
    ("datetime", "datetime"): {"type": "string", "format": "date-time"},
    ("datetime", "date"): {"type": "string", "format": "date"},
    ("datetime", "time"): {"type": "string", "format": "time"},
    ("uuid", "UUID"): {"type": "string", "format": "uuid"},
    ("decimal", "Decimal"): {"type": "string"},
    ("enum", "Flag"): {"type": "integer"},  # combinations have numbers of their own
    ("builtins", "str"): {"type": "string"},
    ("builtins", "int"): {"type": "integer"},
    ("builtins", "float"): {"type": "number"},
}


def format_from_hint(hint: Any) -> Schema | None:
    """Return the schema of a payload or result with this hint, `$schema` included, or None."""
    schema = schema_from_hint(hint)
    return {"$schema": DRAFT, **_rooted(schema)} if schema else None


def result_format_from_hint(hint: Any) -> Schema | None:
    """As `format_from_hint`, for a result: what may be null may be missing, for models are dumped without None."""
    schema = format_from_hint(hint)
    pending: list[Any] = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            pending += node.values()
            properties = node.get("properties")
            if isinstance(properties, dict) and isinstance(node.get("required"), list):
                node["required"] = [name for name in node["required"] if not _admits_null(properties.get(name))]
        elif isinstance(node, list):
            pending += node
    return schema


def _admits_null(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    types = schema.get("type")
    return (
        types == "null"
        or (isinstance(types, list) and "null" in types)
        or any(map(_admits_null, schema.get("anyOf", ())))
    )


def format_from_parameters(signature: Signature, doc: str | None = None) -> Schema:
    """Return the schema of an object whose keys are the handler's parameters, described by its docstring."""
    hints = {name: signature.annotations.get(name) for name in signature.names if name != "metadata"}
    required = [name for name in signature.required if name != "metadata"]
    schemas = {name: schema_from_hint(hint) for name, hint in hints.items()}
    properties = _properties(schemas, signature.defaults, doc)
    schema = _object(properties, required, closed=not signature.takes_any_keyword)
    if not required:
        schema["type"] = ["object", "null"]  # a call without a payload is a call without arguments
    return {"$schema": DRAFT, **_rooted(schema)}


class _Walk:
    """The classes met below one hint: those that hold themselves become definitions, and are referred to.

    `open` are the classes whose fields are being read, `definitions` those that are done, with their names;
    `referred` are the open classes that fields read since the last one was opened refer to.
    """

    def __init__(self) -> None:
        self.open: dict[Any, str] = {}
        self.done: dict[Any, str] = {}
        self.definitions: dict[str, Schema] = {}
        self.referred: set[Any] = set()
        self.unreadable: list[Any] = []  # hints of which no JSON value is made

    def read(self, hint: Any, cls: Any, read: Callable[[Any, _Walk], Schema]) -> Schema:
        """Return the schema of a class that has fields, or a reference to it."""
        if hint in self.open:
            self.referred.add(hint)
        if name := self.open.get(hint) or self.done.get(hint):
            return {"$ref": f"#/$defs/{name}"}
        name, number, taken = cls.__name__, 2, {*self.open.values(), *self.done.values()}
        while name in taken:
            name, number = f"{cls.__name__}_{number}", number + 1
        outside, self.referred = self.referred, set()
        self.open[hint] = name
        schema = read(hint, self)
        del self.open[hint]
        holds_itself = bool(self.referred)
        self.referred = outside | self.referred - {hint}
        if not holds_itself:
            return schema
        self.done[hint], self.definitions[name] = name, schema
        return {"$ref": f"#/$defs/{name}"}


def schema_from_hint(hint: Any) -> Schema | None:
    """Return the schema of one hint, `$defs` included, None when it says nothing.

    A handler without a hint, or whose result is None, has no format; None inside a union is null.
    """
    if hint is None:
        return None
    walk = _Walk()
    schema = _from_hint(hint, walk)
    if not schema or not walk.definitions:
        return schema
    # What looks for the properties of the whole finds them there.
    body = walk.definitions[walk.done[hint]] if schema.keys() == {"$ref"} and hint in walk.done else schema
    return {**body, "$defs": walk.definitions}


def _from_hint(hint: Any, walk: _Walk) -> Schema | None:
    # What an Annotated hint holds may have no hash.
    if not hasattr(hint, "__metadata__") and type(hint).__hash__ is not None and hint in _SIMPLE:
        return dict(_SIMPLE[hint])
    origin = getattr(hint, "__origin__", None)
    if origin is not None or is_union(hint):
        return _from_generic(hint, origin, walk)
    if isinstance(hint, type):
        return _from_class(hint, walk)
    supertype = getattr(hint, "__supertype__", None)
    return None if supertype is None else _from_hint(supertype, walk)


def _from_generic(hint: Any, origin: Any, walk: _Walk) -> Schema | None:
    arguments: tuple[Any, ...] = getattr(hint, "__args__", ())
    if is_union(hint):
        return _from_union(arguments, walk)
    if getattr(origin, "_name", None) == "Literal" or str(origin) == "typing.Literal":
        return _from_values(list(arguments))
    if hasattr(hint, "__metadata__"):
        schema = _from_hint(origin, walk)
        texts = [note for note in hint.__metadata__ if type(note) is str]  # a text class of its own says something else
        return {**schema, "description": texts[0]} if schema and texts else schema
    if str(origin) in ("typing.Required", "typing.NotRequired", "typing.ReadOnly", "typing.Final"):
        return _from_hint(arguments[0], walk)
    if not isinstance(origin, type):
        return None
    return _from_class(hint, walk) if is_model(origin) else _from_container(hint, arguments, walk)


def _from_union(members: tuple[Any, ...], walk: _Walk) -> Schema | None:
    schemas: list[Any] = [_from_hint(member, walk) for member in members]
    if None in schemas:
        return None
    if all(set(schema) == {"type"} for schema in schemas):
        return {"type": [schema["type"] for schema in schemas]}
    return {"anyOf": schemas}


def _from_values(values: list[Any]) -> Schema:
    plain = [getattr(value, "value", value) for value in values]
    classes = {type(value) for value in plain}
    typed = _SIMPLE.get(classes.pop(), {}) if len(classes) == 1 else {}
    return {**typed, "enum": plain}


def _from_container(hint: Any, arguments: tuple[Any, ...], walk: _Walk) -> Schema | None:
    origin: type = getattr(hint, "__origin__", hint)
    if is_mapping(origin):
        values = _from_hint(arguments[1], walk) if len(arguments) == 2 else None
        return {"type": "object", "additionalProperties": values} if values else {"type": "object"}
    if issubclass(origin, tuple) and arguments and arguments[-1] is not Ellipsis:
        places = [_from_hint(argument, walk) or {} for argument in arguments]
        return {"type": "array", "prefixItems": places, "minItems": len(places), "maxItems": len(places)}
    if is_array(origin):
        items = _from_hint(arguments[0], walk) if arguments else None
        base = _SIMPLE.get(origin, _SIMPLE[list])
        return {**base, "items": items} if items else dict(base)
    walk.unreadable.append(hint)
    return None


def is_model(cls: Any) -> bool:
    """Tell whether a class is a dataclass, TypedDict, NamedTuple or Struct, which may be generic."""
    is_named_tuple = issubclass(cls, tuple) and hasattr(cls, "_fields")
    return has_fields(cls) or is_named_tuple or is_subclass(cls, "msgspec", "Struct")


def has_fields(cls: Any) -> bool:
    """Tell whether a class is a dataclass or a TypedDict."""
    return hasattr(cls, "__required_keys__") or hasattr(cls, "__dataclass_fields__")


def _from_class(hint: Any, walk: _Walk) -> Schema | None:
    """Return the schema of a class, or of a generic one with its arguments."""
    cls = getattr(hint, "__origin__", hint)
    schema = _from_describing_class(hint, cls)
    if schema is not None:
        return schema
    if is_subclass(cls, "enum", "Enum") and not is_subclass(cls, "enum", "Flag"):
        return _from_values([member.value for member in cls])
    if is_model(cls):
        return walk.read(hint, cls, _from_fields if has_fields(cls) else _from_named_tuple)
    for (module, name), known_schema in _KNOWN_CLASSES.items():
        if is_subclass(cls, module, name):
            return dict(known_schema)
    return None if cls is object or cls.__name__ == "Any" else _from_container(cls, (), walk)


def _from_describing_class(hint: Any, cls: type) -> Schema | None:
    describe = getattr(cls, "model_json_schema", None)
    if callable(describe):
        return dict(describe())
    if not is_subclass(cls, "msgspec", "Struct"):
        return None
    (schema,), definitions = sys.modules["msgspec"].json.schema_components([hint], ref_template="#/$defs/{name}")
    if "$ref" not in schema:
        return {**schema, "$defs": definitions}
    import json  # Structs only

    name = schema["$ref"].rpartition("/")[2]
    return dict(json.loads(json.dumps({**definitions[name], "$defs": definitions})))


def _from_named_tuple(hint: Any, walk: _Walk) -> Schema:
    """Return the schema of an array, which a NamedTuple is in JSON for msgspec and pydantic too, by position."""
    cls, hints = getattr(hint, "__origin__", hint), hints_of_fields(hint)
    schemas = {name: _from_hint(hints.get(name), walk) for name in cls._fields}
    places = _properties(schemas, cls._field_defaults, None)
    required = len(places) - len(cls._field_defaults)
    return {
        "type": "array",
        "title": cls.__name__,
        "prefixItems": list(places.values()),
        "minItems": required,
        "maxItems": len(places),
    }


def _from_fields(hint: Any, walk: _Walk) -> Schema:
    """Return the schema of a TypedDict or a dataclass."""
    cls, hints = getattr(hint, "__origin__", hint), hints_of_fields(hint)
    if hasattr(cls, "__required_keys__"):
        defaults = {}
        # Where annotations are strings, `__required_keys__` has not seen the qualifier.
        qualifiers = {name: str(getattr(hint, "__origin__", "")) for name, hint in hints.items()}
        required = [
            name
            for name, qualifier in qualifiers.items()
            if qualifier == "typing.Required" or (qualifier != "typing.NotRequired" and name in cls.__required_keys__)
        ]
    else:
        missing = sys.modules["dataclasses"].MISSING
        fields = {name: field for name, field in cls.__dataclass_fields__.items() if field.init}
        hints = {name: hints.get(name) for name in fields}
        defaults = {name: field.default for name, field in fields.items() if field.default is not missing}
        required = [name for name in fields if name not in defaults and fields[name].default_factory is missing]
    properties = _properties({name: _from_hint(each, walk) for name, each in hints.items()}, defaults, cls.__doc__)
    schema = {"title": cls.__name__, **_object(properties, required, closed=False)}
    doc = first_paragraph(cls.__doc__)
    # A dataclass without a docstring gets its signature as one.
    return {**schema, "description": doc} if doc and not doc.startswith(f"{cls.__name__}(") else schema


def hints_of_fields(hint: Any) -> dict[str, Any]:
    """Return the annotations of a class as objects, of a generic one with the arguments that `hint` has for it.

    UnresolvedAnnotation if one cannot be resolved.
    """
    cls = getattr(hint, "__origin__", hint)
    try:
        hints = resolve_hints(cls)
    except Exception as error:  # noqa: BLE001 - the boundary to what a user has written as an annotation
        raise UnresolvedAnnotation(_explain_annotation(cls, error)) from None
    if cls is hint:
        return hints
    given = dict(zip(cls.__parameters__, hint.__args__, strict=False))
    return {name: _with_arguments(each, given) for name, each in hints.items()}


def _with_arguments(hint: Any, given: dict[Any, Any]) -> Any:
    parameters = getattr(hint, "__parameters__", None)
    if isinstance(hint, type) or not parameters:
        return given.get(hint, hint) if type(hint).__name__ == "TypeVar" else hint
    return hint[tuple(given.get(each, each) for each in parameters)]


def _explain_annotation(cls: Any, error: Exception) -> str:
    """Name the field of the class, or of one below it, whose annotation is the cause."""
    import typing  # loaded already

    text = f"an annotation of {cls.__name__} cannot be resolved"
    for base in (*cls.__mro__, *getattr(cls, "__orig_bases__", ())):
        for name, annotation in getattr(base, "__dict__", {}).get("__annotations__", {}).items():
            alone = type("alone", (), {"__annotations__": {name: annotation}, "__module__": base.__module__})
            try:
                typing.get_type_hints(alone)
            except Exception:  # noqa: BLE001 - as in `hints_of_fields`
                shown = getattr(annotation, "__forward_arg__", annotation)
                text = f"the annotation {shown!r} of {base.__name__}.{name}{_place_of(base, name)} cannot be resolved"
                break
    return f"{text}: {type(error).__name__}: {error}; {way_out_of(error, 'class')}"


def _place_of(cls: Any, name: str) -> str:
    """Return ` (FILE:LINE)` of a class's field, as well as that can be found."""
    import inspect  # only a mistake needs it

    try:
        file, (lines, first) = inspect.getsourcefile(cls), inspect.getsourcelines(cls)
    except (OSError, TypeError):
        return ""
    line = next((number for number, line in enumerate(lines) if line.split(":")[0].strip() == name), 0)
    return f" ({file}:{first + line})"


def _properties(schemas: dict[str, Schema | None], defaults: dict[str, Any], doc: str | None) -> dict[str, Schema]:
    """Return the schema of each field or parameter, with its default and what the docstring says of it."""
    descriptions = parameter_descriptions(doc)
    properties = {}
    for name, described in schemas.items():
        schema = dict(described or {})
        default = defaults.get(name, ...)
        if default is None or isinstance(default, bool | int | float | str):
            schema["default"] = default
        if name in descriptions:
            schema["description"] = descriptions[name]
        properties[name] = schema
    return properties


def _rooted(schema: Schema) -> Schema:
    """Return the schema with the definitions of all its models at its root, where the references point."""
    definitions: dict[str, tuple[Schema, Schema]] = {}
    root = _without_definitions(schema, definitions)
    return {**root, "$defs": {name: body for name, (body, _) in definitions.items()}} if definitions else dict(root)


def _without_definitions(node: Any, definitions: dict[str, tuple[Schema, Schema]]) -> Any:
    if isinstance(node, list):
        return [_without_definitions(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    own: Schema = node.get("$defs", {})
    names = {}
    for name in own:
        free, number = name, 2
        while free in definitions and definitions[free][1] != own:  # a different definition has the name
            free, number = f"{name}_{number}", number + 1
        names[name] = free
    new = {name: free for name, free in names.items() if free not in definitions}
    definitions |= {free: ({}, own) for free in new.values()}
    for name, free in new.items():
        definitions[free] = (_without_definitions(_renamed(own[name], names), definitions), own)
    bare = {key: item for key, item in node.items() if key != "$defs"}
    return {key: _without_definitions(item, definitions) for key, item in _renamed(bare, names).items()}


def _renamed(node: Any, names: dict[str, str]) -> Any:
    """Return a schema with other names in its references, but those to definitions that a part of it has itself."""
    if not names:
        return node
    if isinstance(node, list):
        return [_renamed(item, names) for item in node]
    if not isinstance(node, dict):
        return node
    own = node.get("$defs", {})
    names = {name: free for name, free in names.items() if name not in own}
    renamed = {key: _renamed(item, names) for key, item in node.items()}
    reference = renamed.get("$ref")
    if isinstance(reference, str):
        place, _, name = reference.rpartition("/")
        renamed["$ref"] = f"{place}/{names.get(name, name)}"
    return renamed


def _object(properties: dict[str, Schema], required: list[str], *, closed: bool) -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    if closed:
        schema["additionalProperties"] = False
    return schema


def integer_from(value: Any) -> int:
    """Return a JSON integer as an int: JSON Schema counts 3.0 among them. TypeError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if value.__class__ is float and value.is_integer():
        return int(value)
    raise TypeError(f"{value!r} is not an integer")


def is_union(hint: Any) -> bool:
    """Tell whether this is a `Union`, an `Optional` or an `A | B`."""
    return type(hint).__name__ == "UnionType" or str(getattr(hint, "__origin__", "")) == "typing.Union"


def unreadable_in(hint: Any) -> Any:
    """Return a class or another hint, in this one, of whose values none is made of JSON; None without one."""
    walk = _Walk()
    _from_hint(hint, walk)
    return next(iter(walk.unreadable), None)


def is_array(cls: type) -> bool:
    """Tell whether values of this class are JSON arrays."""
    return issubclass(cls, list | tuple | set | frozenset) or cls.__name__ in ("Sequence", "Iterable")


def is_mapping(cls: type) -> bool:
    """Tell whether values of this class are JSON objects with any keys."""
    return issubclass(cls, dict) or cls.__name__ in ("Mapping", "MutableMapping")


def first_paragraph(doc: str | None) -> str | None:
    """Return the first paragraph of a docstring on one line, None when there is none."""
    head = (doc or "").strip().partition("\n\n")[0]
    return " ".join(line.strip() for line in head.splitlines()) or None


def parameter_descriptions(doc: str | None) -> dict[str, str]:
    """Return the text for each parameter that a docstring describes, on one line each.

    Two forms are read: `Args:` with indented `name: text` lines (also `Attributes:` and `Parameters:`), and
    `:param name: text`.
    """
    lines = (doc or "").expandtabs().splitlines()
    descriptions = _from_section(lines)
    for line in lines:
        head, _, text = line.strip().removeprefix(":").partition(":")
        words = head.split()
        # `:param name:` or `:param type name:`
        if words[:1] == ["param"] and line.strip().startswith(":") and len(words) > 1 and text.strip():
            descriptions[words[-1]] = text.strip()
    return descriptions


def _from_section(lines: list[str]) -> dict[str, str]:
    """Return what stands below the first `Args:` until the indentation ends."""
    outer, inner = -1, 0
    descriptions: dict[str, str] = {}
    name = ""
    for line in lines:
        text = line.strip()
        if outer < 0:  # still above the section
            outer = _indent(line) if text.lower() in _SECTION_HEADS else -1
            continue
        if text and _indent(line) <= outer:
            break
        inner = inner or _indent(line)
        if text and _indent(line) == inner:
            name, _, text = (part.strip() for part in text.partition(":"))
            name = name.partition("(")[0].strip().lstrip("*")
        if name and text:
            descriptions[name] = f"{descriptions.get(name, '')} {text}".strip()
    return descriptions


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip()) if line.strip() else 0
