"""Functions written for one signature, dataclass or TypedDict: text that is compiled the first time it is needed.

They do without loops what `convert_fields` of conversion.py and `arguments_from` of handler.py do, which stay the
meaning: what is not plain (a key that is missing, a value that is no object) is handed over to those. A worker runs
them for each object of each call. Names of users stand in the text only as literals, and as keywords of a call.
"""

from __future__ import annotations

from types import FunctionType

from iii.worker.functions.schema import integer_from
from iii.worker.functions.signature import read_signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from iii.worker.functions.signature import Signature

    Converter = Callable[[Any], Any]


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


class CompiledConverter:
    """A converter that is written and compiled when it is first needed."""

    __slots__ = ("_compiled", "_write")

    def __init__(self, write: Callable[[], Converter]) -> None:
        self._write = write
        self._compiled: Converter | None = None

    @property
    def compiled(self) -> Converter:
        """The function itself, which saves a call."""
        if self._compiled is None:
            self._compiled = self._write()
        return self._compiled

    def __call__(self, value: Any) -> Any:
        return self.compiled(value)


def listed(value: Any) -> list[Any]:
    """Return a list as it is. TypeError for anything else."""
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return value


def constructor_of(cls: Any) -> Signature | None:
    """Return what a class takes, `self` first; None for one whose own way to make instances may be anything."""
    is_plain = cls.__new__ is object.__new__ and type(cls).__call__ is type.__call__
    return read_signature(cls.__init__) if is_plain and isinstance(cls.__init__, FunctionType) else None


def write_dataclass_converter(
    cls: Any, signature: Signature, converters: dict[str, Converter], otherwise: Converter
) -> Converter:
    """Return the converter of a dataclass whose constructor takes each of its fields, and nothing else."""
    text = _Text("value", converters, {"call": cls, "otherwise": otherwise})
    text.lines.append(" if type(value) is not dict: return otherwise(value)")
    variables = text.read(signature.names[1:], signature.defaults, missing="return otherwise(value)")
    return text.compile(_calling(variables, signature.keyword_only))


def write_typed_dict_converter(converters: dict[str, Converter], otherwise: Converter) -> Converter:
    """Return the converter of a TypedDict: a copy where a value changes, else the dict itself."""
    text = _Text("value", converters, {"otherwise": otherwise})
    text.lines += [" if type(value) is not dict: return otherwise(value)", " items = value"]
    for index, name in enumerate(converters):
        guard, expression = text.conversion(name, f"item_{index}")
        text.lines += [
            f" if {name!r} in value:",
            f"  item_{index} = value[{name!r}]",
            f"  if {guard}:",
            "   if items is value: items = value.copy()",
            f"   items[{name!r}] = {expression}",
        ]
    return text.compile("items")


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
    own = {"call": function, "check": check, "inconvertible": inconvertible, "known": frozenset(names)}
    text = _Text("value, metadata=None", converters, own)
    others = "not value.keys() <= known" if signature.defaults else f"len(value) != {len(names)}"
    text.lines += [
        " if type(value) is not dict: value = check(value)",
        # Where each has to be there, their number tells whether there are others.
        f" if {others}: check(value)",
    ]
    variables = text.read(names, signature.defaults, missing="check(value); raise", is_call=True)
    ordered = {name: variables.get(name, "metadata") for name in signature.names}
    return text.compile(_calling(ordered, signature.keyword_only))


class _Text:
    """The lines of one function, and what they refer to. The variable of a key is `item_N`."""

    def __init__(self, parameters: str, converters: dict[str, Converter], namespace: dict[str, Any]) -> None:
        self.lines = [f"def convert({parameters}):"]
        self._converters = converters
        self._namespace = {"listed": listed, **namespace}

    def conversion(self, name: str, variable: str) -> tuple[str, str]:
        """Return the test that the value in a variable needs conversion, and what it becomes then."""
        converter: Any = self._converters[name]
        tests = []
        if isinstance(converter, OptionalConverter):
            tests.append(f"{variable} is not None")
            converter = converter.inner
        if converter is integer_from:
            tests.append(f"type({variable}) is not int")
        is_list = isinstance(converter, ListConverter)
        if is_list:
            converter = converter.inner
        function = f"convert_{variable}"
        self._namespace[function] = getattr(converter, "compiled", converter)
        expression = f"[{function}(item) for item in listed({variable})]" if is_list else f"{function}({variable})"
        return " and ".join(tests) or "True", expression

    def read(
        self, names: list[str], defaults: dict[str, Any], *, missing: str, is_call: bool = False
    ) -> dict[str, str]:
        """Add the lines that put each key, converted, into its variable; `missing` is what one without default does."""
        variables = {name: f"item_{index}" for index, name in enumerate(names)}
        required = [name for name in names if name not in defaults]
        if required:
            reading = [f"  {variables[name]} = value[{name!r}]" for name in required]
            self.lines += [" try:", *reading, " except KeyError:", f"  {missing}"]
        for name, variable in variables.items():
            converting = self._converting(name, variable, is_call=is_call) if name in self._converters else []
            if name in required:
                self.lines += [f" {line}" for line in converting]
                continue
            # The default as it is, as if it had not been given.
            self._namespace[f"default_{variable}"] = defaults[name]
            self.lines += [f" if {name!r} in value:", f"  {variable} = value[{name!r}]"]
            self.lines += [*(f"  {line}" for line in converting), " else:", f"  {variable} = default_{variable}"]
        return variables

    def _converting(self, name: str, variable: str, *, is_call: bool) -> list[str]:
        guard, expression = self.conversion(name, variable)
        line = f"{variable} = {expression}"
        if not is_call:
            return [f"if {guard}: {line}"]
        raising = f"  raise inconvertible({variable}, {name!r}, error) from None"
        return [f"if {guard}:", " try:", f"  {line}", " except (ValueError, TypeError) as error:", raising]

    def compile(self, result: str) -> Callable[..., Any]:
        """Return the function, which ends with this result."""
        text = "\n".join([*self.lines, f" return {result}"])
        # As a part of this file: tracebacks for users leave it out.
        exec(compile(text, __file__, "exec"), self._namespace)
        return self._namespace["convert"]  # type: ignore[no-any-return]


def _calling(variables: dict[str, str], keyword_only: list[str]) -> str:
    """Return the call with these variables, of which those of `keyword_only` go by name."""
    arguments = (f"{name}={each}" if name in keyword_only else each for name, each in variables.items())
    return f"call({', '.join(arguments)})"
