"""JSON values to the types of a typed handler: dates, enums, dataclasses, Structs, models, and containers of them.

The opposite of `schema.py`: it reads the same hints, once at registration. `handler.py` loads it only for hints that
plain JSON does not satisfy. A converter raises ValueError or TypeError for a value that does not fit. Pure.
"""

from __future__ import annotations

import sys

from iii.worker.codec.stdlib_json import is_subclass
from iii.worker.functions.construction import (
    ListConverter,
    ObjectConverter,
    OptionalConverter,
    constructor_of,
    listed,
)
from iii.worker.functions.schema import (
    has_fields,
    hints_of_fields,
    integer_from,
    is_array,
    is_mapping,
    is_model,
    is_union,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Converter = Callable[[Any], Any]
    # By class: a class that holds itself is converted by the one converter at every depth.
    Known = dict[Any, Converter | None]


# The classes that a JSON value may have where a union's member needs no conversion.
_JSON_CLASSES: dict[Any, Any] = {cls: cls for cls in (str, int, bool, dict, list, type(None))} | {float: (int, float)}


# What a text has to be that no JSON Schema of ours checks, by the class that is made of it.
_EXPECTED = {
    "datetime": "a date and time such as 2026-05-01T12:00:00Z",
    "date": "a date such as 2026-05-01",
    "time": "a time such as 12:00:00",
    "UUID": "a UUID such as 123e4567-e89b-12d3-a456-426614174000",
    "Decimal": "a decimal number such as 1.50",
    "bytes": "bytes in base64",
}


class Unfit:
    """A value inside of another one: its path from there, what it has to be, and what it is."""

    def __init__(self, path: str, expected: str, got: Any) -> None:
        self.path = path
        self.expected = expected
        self.got = got


def find_unfit(converter: Converter, value: Any, path: str) -> Unfit | None:
    """Return the first text at or below `path` that is not one its class is made of; None if that is not the cause.

    No constructor of a user's class runs for that.
    """
    if isinstance(converter, OptionalConverter):
        return None if value is None else find_unfit(converter.inner, value, path)
    pairs: list[tuple[Any, Any, str]] = []
    if isinstance(converter, ListConverter) and isinstance(value, list):
        pairs = [(converter.inner, item, f"{path}[{index}]") for index, item in enumerate(value)]
    elif isinstance(converter, MappingConverter) and isinstance(value, dict):
        pairs = [(converter.inner, item, f"{path}.{key}") for key, item in value.items()]
    elif isinstance(converter, ObjectConverter) and isinstance(value, dict):
        fields = converter.converters.items()
        pairs = [(inner, value[name], f"{path}.{name}") for name, inner in fields if name in value]
    elif (cls := getattr(converter, "__self__", None) or getattr(converter, "cls", None)) is not None:
        expected = next((_EXPECTED[base.__name__] for base in cls.__mro__ if base.__name__ in _EXPECTED), None)
        try:
            if expected is not None:
                converter(value)
        except (ValueError, TypeError):
            return Unfit(path, str(expected), value)
    return next((unfit for pair in pairs if (unfit := find_unfit(*pair)) is not None), None)


class MappingConverter:
    """Converts each value of an object."""

    def __init__(self, inner: Converter) -> None:
        self.inner = inner

    def __call__(self, value: Any) -> Any:
        return {key: self.inner(item) for key, item in value.items()}


class TextConverter:
    """Makes a UUID, a Decimal or bytes of a text."""

    def __init__(self, cls: Any) -> None:
        self.cls = cls

    def __call__(self, value: Any) -> Any:
        if self.cls is bytes:
            import base64  # needed for bytes only

            return base64.b64decode(value, validate=True)
        try:
            return self.cls(str(value))
        except ArithmeticError:
            raise ValueError(f"{value!r} is not a number") from None


def converter_from_hint(hint: Any, known: Known | None = None) -> Converter | None:
    """Return the function that turns a JSON value into one of this type, None when the value may stay as it is.

    `known` are the converters of classes that are made already.
    """
    known = {} if known is None else known
    if hint is None:
        return None
    origin, arguments = getattr(hint, "__origin__", None), getattr(hint, "__args__", None)
    if isinstance(hint, type) and origin is None:
        return _from_class(hint, known)
    if is_union(hint):
        return _from_union(hint.__args__, known)
    if str(origin) == "typing.Literal":
        return _from_choices(hint.__args__)
    if arguments is not None and isinstance(origin, type) and not hasattr(hint, "__metadata__"):
        return _from_class(hint, known) if is_model(origin) else _from_container(origin, arguments, known)
    # A NewType is the type below it; Annotated, Required and the like say nothing about the value.
    inner = getattr(hint, "__supertype__", None) if arguments is None else arguments[0]
    return converter_from_hint(inner, known)


def _from_choices(choices: tuple[Any, ...]) -> Converter | None:
    """By value: an enum's member stands for its value, and 3.0 is the choice 3, but true is not the choice 1."""
    by_value = {getattr(choice, "value", choice): choice for choice in choices}
    if all(choice.__class__ in (str, bool, type(None)) for choice in by_value.values()):
        return None
    return lambda value: value if isinstance(value, bool | list | dict) else by_value.get(value, value)


def _from_union(members: tuple[Any, ...], known: Known) -> Converter | None:
    # Beside float, 3.0 is what it is.
    kept = (int,) if float in members else ()
    pairs = [(member, None if member in kept else converter_from_hint(member, known)) for member in members]
    if not any(converter for _, converter in pairs):
        return None

    has_none = type(None) in members
    rest = [converter for member, converter in pairs if member is not type(None)]
    if has_none and len(rest) == 1:
        (only,) = rest
        assert only is not None
        return OptionalConverter(only)

    def convert(value: Any) -> Any:
        if value is None and has_none:
            return None
        reasons = []
        for member, converter in pairs:
            cls = getattr(member, "__origin__", member)
            try:
                if converter is not None:
                    return converter(value)
            except (ValueError, TypeError) as error:
                reasons.append(str(error))
            else:
                if isinstance(value, _JSON_CLASSES.get(cls, object)):
                    return value
                reasons.append(f"{value!r} is not {cls.__name__}")
        raise ValueError(" and ".join(reasons))

    return convert


def _from_container(origin: type, arguments: tuple[Any, ...], known: Known) -> Converter | None:
    converters = [converter_from_hint(argument, known) for argument in arguments]
    if is_mapping(origin):
        convert_value = converters[1] if len(converters) == 2 else None
        if convert_value is None:
            return None
        return MappingConverter(convert_value)
    if issubclass(origin, tuple) and arguments and arguments[-1] is not Ellipsis:

        def convert(value: Any) -> Any:
            pairs = zip(converters, listed(value), strict=True)
            return tuple(item if converter is None else converter(item) for converter, item in pairs)

        return convert
    convert_item = converters[0] if converters and is_array(origin) else None
    cls: Any = origin
    if cls in (tuple, set, frozenset):
        return _from_class(cls, known) if convert_item is None else lambda value: cls(map(convert_item, listed(value)))
    if convert_item is None or convert_item is integer_from:
        return convert_item and _integers_from
    return ListConverter(convert_item)


def _integers_from(value: Any) -> list[Any]:
    items = listed(value)
    # One pass in C over what is a list of integers already.
    return items if set(map(type, items)) <= {int} else [integer_from(item) for item in items]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return value


def _from_class(hint: Any, known: Known) -> Converter | None:
    """Return the converter of a class, or of a generic one with its arguments."""
    cls = getattr(hint, "__origin__", hint)
    validate = getattr(cls, "model_validate", None)
    if callable(validate):
        return validate  # type: ignore[no-any-return]
    converter: Converter | None = integer_from if cls is int else None
    if is_subclass(cls, "msgspec", "Struct"):
        converter = _from_struct(hint)
    elif is_subclass(cls, "enum", "Enum"):
        converter = _from_enum(cls)
    elif has_fields(cls):
        converter = _from_fields(hint, known)
    elif is_subclass(cls, "datetime", "date", "time"):
        converter = cls.fromisoformat
    elif cls is bytes or is_subclass(cls, "uuid", "UUID") or is_subclass(cls, "decimal", "Decimal"):
        converter = TextConverter(cls)
    elif issubclass(cls, str | int | float) and cls not in _JSON_CLASSES:
        read = _text if issubclass(cls, str) else integer_from if issubclass(cls, int) else _number
        return lambda value: cls(read(value))
    elif issubclass(cls, tuple) or cls in (set, frozenset):
        return _from_named_tuple(hint, known) if hasattr(cls, "_fields") else lambda value: cls(listed(value))
    return converter


def _from_named_tuple(hint: Any, known: Known) -> Converter | None:
    if hint in known:
        return known[hint]
    cls = getattr(hint, "__origin__", hint)
    converters: list[Converter | None] = []

    def convert(value: Any) -> Any:
        items = listed(value)
        # The constructor says how many are too many, or which is missing.
        if len(items) > len(converters):
            return cls(*items)
        pairs = zip(converters, items, strict=False)  # those behind have defaults
        return cls(*(item if converter is None else converter(item) for converter, item in pairs))

    known[hint] = convert
    hints = hints_of_fields(hint)
    converters += [converter_from_hint(hints.get(name), known) for name in cls._fields]
    return convert


def _from_enum(cls: Any) -> Converter:
    try:
        members = {member.value: member for member in cls}
    except TypeError:  # a value that is no key
        return cls  # type: ignore[no-any-return]

    def convert(value: Any) -> Any:
        try:
            return members[value]
        except (KeyError, TypeError):
            return cls(value)  # knows combinations of flags, and says what is wrong

    return convert


def _from_struct(cls: Any) -> Converter:
    msgspec = sys.modules["msgspec"]

    def convert(value: Any) -> Any:
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            try:
                # It takes no 3.0 for an int, but 3 for a float: so every number may be the integer that it is.
                return msgspec.convert(_with_integers(value), cls)
            except msgspec.ValidationError:
                raise ValueError(str(error)) from None

    return convert


def _with_integers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_integers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _from_fields(hint: Any, known: Known) -> Converter | None:
    """Return the converter of a dataclass or a TypedDict."""
    if hint in known:
        return known[hint]
    cls = getattr(hint, "__origin__", hint)
    is_dataclass = hasattr(cls, "__dataclass_fields__")
    hints = hints_of_fields(hint)
    fields: dict[str, Converter | None] = {}
    converters: dict[str, Converter] = {}

    def convert(value: Any) -> Any:
        return convert_fields(value, cls if is_dataclass else None, fields)

    signature = constructor_of(cls) if is_dataclass else None
    is_own = is_dataclass and (
        signature is None or signature.takes_any_keyword or {*signature.names[1:]} != hints.keys()
    )
    known[hint] = convert if is_own else ObjectConverter(cls, signature, converters, convert)
    fields |= {name: converter_from_hint(each, known) for name, each in hints.items()}
    converters |= {name: converter for name, converter in fields.items() if converter is not None}
    if not converters and not is_dataclass:
        known[hint] = None
    return known[hint]


def convert_fields(value: Any, cls: Any, fields: dict[str, Converter | None]) -> Any:
    """Return the instance of a dataclass `cls`, or (None) the object of a TypedDict, with its fields converted."""
    if value.__class__ is not dict:
        raise TypeError(f"{value!r} is not an object")
    items = value.copy()
    for name, item in value.items():
        converter = fields.get(name)
        if converter is not None:
            items[name] = converter(item)
    if cls is None:
        return items
    try:
        return cls(**items)
    except TypeError:
        if fields.keys() >= items.keys():
            raise
    # The constructor takes no fields that the class does not have.
    return cls(**{name: item for name, item in items.items() if name in fields})
