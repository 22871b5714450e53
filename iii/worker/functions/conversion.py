"""JSON values to what a typed handler asked for: dates, enums, dataclasses, Structs, models, and containers of them.

The way back of `schema.py`: the same hints, read once at registration. Loaded by `handlers.py` only for hints that
plain JSON does not satisfy. Pure. A converter raises ValueError or TypeError for a value that does not fit.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Converter = Callable[[Any], Any]

# A type that contains itself is converted this deep, and left as JSON below.
MAX_NESTING = 16

_ISO_CLASSES = (("datetime", "datetime"), ("datetime", "date"), ("datetime", "time"))
_TEXT_CLASSES = (("uuid", "UUID"), ("decimal", "Decimal"))
_JSON_KINDS: dict[Any, Any] = {
    str: str,
    int: int,
    float: (int, float),
    bool: bool,
    dict: dict,
    list: list,
    type(None): type(None),
}


def converter_from_hint(hint: Any, nesting: int = 0) -> Converter | None:
    """Return what turns a JSON value into one of this type, None when it may stay as it is."""
    if nesting > MAX_NESTING or hint is None:
        return None
    if isinstance(hint, type) and not hasattr(hint, "__origin__"):
        return _from_class(hint, nesting)
    if hasattr(hint, "__args__"):
        return _from_generic(hint, nesting)
    return converter_from_hint(getattr(hint, "__supertype__", None), nesting + 1)


def _from_generic(hint: Any, nesting: int) -> Converter | None:
    origin = getattr(hint, "__origin__", None)
    kind = "typing.Union" if type(hint).__name__ == "UnionType" else str(origin)
    if kind == "typing.Union":
        return _from_union(hint.__args__, nesting)
    if kind == "typing.Literal":
        return _from_literal(hint.__args__)
    if isinstance(origin, type) and not hasattr(hint, "__metadata__"):
        return _from_container(origin, hint.__args__, nesting)
    # Annotated, Required and the like say nothing about the value.
    return converter_from_hint(hint.__args__[0], nesting + 1)


def _from_union(members: tuple[Any, ...], nesting: int) -> Converter | None:
    pairs = [(member, converter_from_hint(member, nesting + 1)) for member in members]
    if not any(converter for _, converter in pairs):
        return None

    def convert(value: Any) -> Any:
        refusals = []
        for member, converter in pairs:
            try:
                return _as_member(value, member, converter)
            except (ValueError, TypeError) as error:
                refusals.append(str(error))
        raise ValueError(" and ".join(refusals))

    return convert


def _as_member(value: Any, member: Any, converter: Converter | None) -> Any:
    if converter is not None:
        return converter(value)
    kind = getattr(member, "__origin__", member)
    if not isinstance(value, _JSON_KINDS.get(kind, object)):
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value


def _from_literal(choices: tuple[Any, ...]) -> Converter | None:
    by_value = {choice.value: choice for choice in choices if hasattr(choice, "value")}
    return (lambda value: by_value.get(value, value)) if by_value else None


def _from_container(origin: type, arguments: tuple[Any, ...], nesting: int) -> Converter | None:
    if issubclass(origin, dict) or origin.__name__ in ("Mapping", "MutableMapping"):
        inner = converter_from_hint(arguments[1], nesting + 1) if len(arguments) == 2 else None
        return None if inner is None else lambda value: {key: inner(item) for key, item in value.items()}
    if issubclass(origin, tuple) and arguments and arguments[-1] is not Ellipsis:
        places = [converter_from_hint(argument, nesting + 1) or _keep for argument in arguments]
        return lambda value: tuple(place(item) for place, item in zip(places, _listed(value), strict=True))
    item = converter_from_hint(arguments[0], nesting + 1) if arguments else None
    made: Any = origin if origin in (tuple, set, frozenset) else list
    if item is None:
        return None if made is list else lambda value: made(_listed(value))
    return lambda value: made([item(part) for part in _listed(value)])


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return value


def _keep(value: Any) -> Any:
    return value


def _from_class(cls: Any, nesting: int) -> Converter | None:
    validate = getattr(cls, "model_validate", None)
    if callable(validate):
        return validate  # type: ignore[no-any-return]
    if _is_one_of(cls, (("msgspec", "Struct"),)):
        return _from_struct(cls)
    if _is_one_of(cls, (("enum", "Enum"),)):
        return cls  # type: ignore[no-any-return]
    if hasattr(cls, "__required_keys__") or hasattr(cls, "__dataclass_fields__"):
        return _from_fields(cls, nesting)
    return _from_scalar_class(cls)


def _from_scalar_class(cls: Any) -> Converter | None:
    if _is_one_of(cls, _ISO_CLASSES):
        return cls.fromisoformat  # type: ignore[no-any-return]
    if _is_one_of(cls, _TEXT_CLASSES):
        return lambda value: _made_from_text(cls, value)
    if cls is bytes:
        return _bytes_from_base64
    if cls in (set, frozenset, tuple):
        return lambda value: cls(_listed(value))
    return None


def _made_from_text(cls: Any, value: Any) -> Any:
    try:
        return cls(str(value))
    except ArithmeticError:
        raise ValueError(f"{value!r} is not a number") from None


def _bytes_from_base64(value: Any) -> bytes:
    import base64  # needed for bytes only

    return base64.b64decode(value, validate=True)


def _from_struct(cls: Any) -> Converter:
    msgspec = sys.modules["msgspec"]

    def convert(value: Any) -> Any:
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None

    return convert


def _from_fields(cls: Any, nesting: int) -> Converter | None:
    import typing  # loaded already by whoever defined such a class

    is_dataclass = hasattr(cls, "__dataclass_fields__")
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {name: converter_from_hint(hint, nesting + 1) for name, hint in hints.items()}
    converters = {name: converter for name, converter in fields.items() if converter is not None}
    if not converters and not is_dataclass:
        return None

    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError(f"{value!r} is not an object")
        made = {name: converters[name](item) if name in converters else item for name, item in value.items()}
        # Fields that the class does not know are no business of its constructor.
        return cls(**{name: item for name, item in made.items() if name in fields}) if is_dataclass else made

    return convert


def _is_one_of(cls: Any, names: tuple[tuple[str, str], ...]) -> bool:
    # A class of a module that nobody has imported cannot be met.
    return any(module in sys.modules and issubclass(cls, getattr(sys.modules[module], name)) for module, name in names)
