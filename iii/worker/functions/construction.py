"""Functions written for one signature, dataclass or TypedDict: text that is compiled the first time it is needed.

They do without loops what `convert_fields` of conversion.py and `arguments_from` of handler.py do, which stay the
meaning: what is not plain (a key that is missing, a value that is no object) is handed over to those. A worker runs
them for each object of each call. Names of users stand in the text only as literals, and as keywords of a call.
"""

from __future__ import annotations

import sys
from types import FunctionType

from iii.worker.functions.schema import integer_from
from iii.worker.functions.signature import read_signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from iii.worker.functions.signature import Signature

    Converter = Callable[[Any], Any]

# A function of more objects costs more to compile than its calls save; those beyond have functions of their own.
MAX_OBJECTS_IN_TEXT = 16


class OptionalConverter:
    """Leaves None as it is."""

    __slots__ = ("inner",)

    def __init__(self, inner: Converter) -> None:
        self.inner = inner

    def __call__(self, value: Any) -> Any:
        return None if value is None else self.inner(value)


class ListConverter:
    """Converts each item of a list."""

    __slots__ = ("inner",)

    def __init__(self, inner: Converter) -> None:
        self.inner = inner

    def __call__(self, value: Any) -> list[Any]:
        return [self.inner(item) for item in listed(value)]


class ObjectConverter:
    """Converts an object of known fields: a function that is written and compiled when it is first needed.

    `converters` are those of the fields that need one; `otherwise` converts what is not plain. A dataclass comes with
    the `signature` of its constructor, which takes each of the fields and nothing else; a TypedDict without.
    """

    __slots__ = ("_compiled", "cls", "converters", "is_filled", "otherwise", "signature")

    def __init__(
        self, cls: Any, signature: Signature | None, converters: dict[str, Converter], otherwise: Converter
    ) -> None:
        self.cls = cls
        self.is_filled = signature is not None and _only_sets_fields(cls)
        self.signature = signature
        self.converters = converters
        self.otherwise = otherwise
        self._compiled: Converter | None = None

    def __call__(self, value: Any) -> Any:
        if self._compiled is None:
            text = _Text("value")
            text.lines += _indented(text.conversion(self, "value"))
            self._compiled = text.compile("value")
        return self._compiled(value)


def listed(value: Any) -> list[Any]:
    """Return a list as it is. TypeError for anything else."""
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return value


def constructor_of(cls: Any) -> Signature | None:
    """Return what a class takes, `self` first; None for one whose own way to make instances may be anything."""
    is_plain = cls.__new__ is object.__new__ and type(cls).__call__ is type.__call__
    return read_signature(cls.__init__) if is_plain and isinstance(cls.__init__, FunctionType) else None


def _only_sets_fields(cls: Any) -> bool:
    """Tell whether the constructor is the one that `dataclass` has written, and does nothing but set each field."""
    names = {field.name for field in sys.modules["dataclasses"].fields(cls) if field.init}
    # What `dataclass` writes stands in a function of this name, in every version.
    is_written = (
        cls.__dataclass_params__.init and cls.__init__.__code__.co_qualname == "__create_fn__.<locals>.__init__"
    )
    return is_written and names == cls.__dataclass_fields__.keys() and not hasattr(cls, "__post_init__")


def write_call(
    function: Callable[..., Any],
    signature: Signature,
    converters: dict[str, Converter],
    check: Callable[[Any], dict[str, Any]],
    inconvertible: Callable[[Any, str, Exception], Exception],
) -> Callable[..., Any]:
    """Return what calls a function with the values of a payload, and the caller's metadata if it has such a parameter.

    `check` returns the arguments in a payload, or raises what does not fit; `inconvertible` makes the error of a value.
    """
    names = [name for name in signature.names if name != "metadata"]
    text = _Text("value, metadata=None")
    text.namespace |= {"check": check, "inconvertible": inconvertible, "known": frozenset(names)}
    others = "not value.keys() <= known" if signature.defaults else f"len(value) != {len(names)}"
    variables = {name: f"item_{index}" for index, name in enumerate(names)}
    text.lines += [
        " if type(value) is not dict: value = check(value)",
        # Where each has to be there, their number tells whether there are others.
        f" if {others}: check(value)",
    ]
    required = text.reading("value", variables, signature.defaults)
    if required:
        text.lines += [" try:", *_indented(required, 2), " except KeyError:", "  check(value); raise"]
    for name, variable in variables.items():
        converting = text.conversion(converters[name], variable) if name in converters else []
        if converting:
            raising = f" raise inconvertible({variable}, {name!r}, error) from None"
            converting = ["try:", *_indented(converting), "except (ValueError, TypeError) as error:", raising]
        text.lines += _indented(text.given_or_default("value", name, variable, signature.defaults, converting))
    ordered = {name: variables.get(name, "metadata") for name in signature.names}
    return text.compile(text.calling(function, "function", ordered, signature.keyword_only))


class _Text:
    """The lines of one function, and what they refer to.

    Lines are made for a variable, whose value they convert in place. Those of the values in it have its name and more:
    `item_0`, `item_0_1`, `item_0_1_each`. A variable keeps its value until the new one is made, for errors.
    """

    def __init__(self, parameters: str) -> None:
        self.lines = [f"def convert({parameters}):"]
        self.namespace: dict[str, Any] = {"listed": listed}
        self._within: list[ObjectConverter] = []
        self._objects = 0

    def conversion(self, converter: Converter, variable: str) -> list[str]:
        """Return the lines that convert the value of a variable."""
        if isinstance(converter, OptionalConverter):
            return [f"if {variable} is not None:", *_indented(self.conversion(converter.inner, variable))]
        if isinstance(converter, ListConverter):
            each = f"{variable}_each"
            return [
                f"{variable}_list = []",
                f"for {each} in {variable} if type({variable}) is list else listed({variable}):",
                *_indented(self.conversion(converter.inner, each)),
                f" {variable}_list.append({each})",
                f"{variable} = {variable}_list",
            ]
        # An object in an object saves a call, but one that holds itself has no end.
        if (
            isinstance(converter, ObjectConverter)
            and converter not in self._within
            and self._objects < MAX_OBJECTS_IN_TEXT
        ):
            self._objects += 1
            self._within.append(converter)
            write = self._typed_dict if converter.signature is None else self._dataclass
            lines = write(converter, variable)
            self._within.pop()
            return lines
        self.namespace[f"convert_{variable}"] = converter
        line = f"{variable} = convert_{variable}({variable})"
        return [f"if type({variable}) is not int: {line}" if converter is integer_from else line]

    def _dataclass(self, converter: ObjectConverter, variable: str) -> list[str]:
        signature = converter.signature
        assert signature is not None
        variables = {name: f"{variable}_{index}" for index, name in enumerate(signature.names[1:])}
        required, lines = self.reading(variable, variables, signature.defaults), []
        for name, inner in variables.items():
            converting = self.conversion(converter.converters[name], inner) if name in converter.converters else []
            lines += self.given_or_default(variable, name, inner, signature.defaults, converting)
        if converter.is_filled:
            lines += self._filling(converter.cls, variable, variables)
        else:
            lines.append(f"{variable} = {self.calling(converter.cls, variable, variables, signature.keyword_only)}")
        if required:
            otherwise = f"except KeyError: {variable} = otherwise_{variable}({variable})"
            lines = ["try:", *_indented(required), otherwise, "else:", *_indented(lines)]
        return self._if_object(converter, variable, lines)

    def _filling(self, cls: Any, variable: str, variables: dict[str, str]) -> list[str]:
        """Set the fields as the constructor does, without its call, which costs more than all of them."""
        self.namespace |= {f"class_{variable}": cls, "new": object.__new__, "set_frozen": object.__setattr__}
        lines = [f"{variable}_made = new(class_{variable})"]
        for name, inner in variables.items():
            factory = cls.__dataclass_fields__[name].default_factory
            if factory is not sys.modules["dataclasses"].MISSING:
                # The constructor's default says only that the factory has to make one.
                self.namespace[f"factory_{inner}"] = factory
                lines.append(f"if {inner} is default_{inner}: {inner} = factory_{inner}()")
            if cls.__dataclass_params__.frozen:
                lines.append(f"set_frozen({variable}_made, {name!r}, {inner})")
            else:
                lines.append(f"{variable}_made.{name} = {inner}")
        return [*lines, f"{variable} = {variable}_made"]

    def _typed_dict(self, converter: ObjectConverter, variable: str) -> list[str]:
        """A copy where a value changes, else the dict itself."""
        lines = [f"{variable}_made = {variable}"]
        for index, (name, inner_converter) in enumerate(converter.converters.items()):
            inner = f"{variable}_{index}"
            lines += [
                f"if {name!r} in {variable}:",
                f" {inner} = {variable}[{name!r}]",
                *_indented(self.conversion(inner_converter, inner)),
                f" if {inner} is not {variable}[{name!r}]:",
                f"  if {variable}_made is {variable}: {variable}_made = {variable}.copy()",
                f"  {variable}_made[{name!r}] = {inner}",
            ]
        return self._if_object(converter, variable, [*lines, f"{variable} = {variable}_made"])

    def _if_object(self, converter: ObjectConverter, variable: str, lines: list[str]) -> list[str]:
        self.namespace[f"otherwise_{variable}"] = converter.otherwise
        otherwise = f"if type({variable}) is not dict: {variable} = otherwise_{variable}({variable})"
        return [otherwise, "else:", *_indented(lines)]

    def reading(self, variable: str, variables: dict[str, str], defaults: dict[str, Any]) -> list[str]:
        """Return the lines that put each key that must be there into its variable."""
        return [f"{inner} = {variable}[{name!r}]" for name, inner in variables.items() if name not in defaults]

    def given_or_default(
        self, variable: str, name: str, inner: str, defaults: dict[str, Any], converting: list[str]
    ) -> list[str]:
        """Return the lines that convert a value that must be there, or read and convert it, or take its default."""
        if name not in defaults:
            return converting
        # The default as it is, as if it had not been given.
        self.namespace[f"default_{inner}"] = defaults[name]
        reading = [f"if {name!r} in {variable}:", f" {inner} = {variable}[{name!r}]"]
        return [*reading, *_indented(converting), f"else: {inner} = default_{inner}"]

    def calling(
        self, callee: Callable[..., Any], variable: str, variables: dict[str, str], keyword_only: list[str]
    ) -> str:
        """Return the call with these variables, of which those of `keyword_only` go by name."""
        self.namespace[f"call_{variable}"] = callee
        arguments = (f"{name}={each}" if name in keyword_only else each for name, each in variables.items())
        return f"call_{variable}({', '.join(arguments)})"

    def compile(self, result: str) -> Callable[..., Any]:
        """Return the function, which ends with this result."""
        text = "\n".join([*self.lines, f" return {result}"])
        # As a part of this file: tracebacks for users leave it out.
        exec(compile(text, __file__, "exec"), self.namespace)
        return self.namespace["convert"]  # type: ignore[no-any-return]


def _indented(lines: list[str], levels: int = 1) -> list[str]:
    return [f"{' ' * levels}{line}" for line in lines]
