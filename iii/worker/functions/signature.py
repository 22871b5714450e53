"""The parameters of a handler, read without the `inspect` module where that is possible.

`inspect` costs a worker's start more than all of the SDK; the code object of a plain function tells the same. Partials,
callable objects and decorated functions are read by `inspect`.
"""

from __future__ import annotations

import sys
from types import FunctionType, MethodType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any

_HAS_KEYWORDS = 0x08
_IS_GENERATOR = 0x20
_IS_ASYNC_GENERATOR = 0x200
# Coroutines and async generators: both need an event loop.
_NEEDS_LOOP = 0x80 | 0x100 | _IS_ASYNC_GENERATOR


class Signature:
    """Names in order: `positional` first, then `keyword_only`; `required` have no default."""

    __slots__ = ("annotations", "defaults", "keyword_only", "positional", "takes_any_keyword")

    def __init__(
        self,
        positional: list[str],
        keyword_only: list[str],
        defaults: dict[str, Any],
        annotations: dict[str, Any],
        *,
        takes_any_keyword: bool,
    ) -> None:
        self.positional = positional
        self.keyword_only = keyword_only
        self.defaults = defaults
        self.annotations = annotations
        self.takes_any_keyword = takes_any_keyword

    @property
    def names(self) -> list[str]:
        """All parameters that a call can give by name."""
        return self.positional + self.keyword_only

    @property
    def required(self) -> list[str]:
        return [name for name in self.names if name not in self.defaults]


class UnresolvedAnnotation(TypeError):
    """An annotation that names what cannot be found; the text says which, and where it stands."""


def read_signature(function: Callable[..., Any], *, strict: bool = False) -> Signature:
    """Return the parameters of `function`, a bound method's without the instance.

    `strict`: UnresolvedAnnotation for an annotation that cannot be resolved; without it there are then none at all.
    """
    plain = function.__func__ if isinstance(function, MethodType) else function
    if not isinstance(plain, FunctionType) or hasattr(plain, "__wrapped__"):
        return _inspected(function, strict=strict)
    code = plain.__code__
    positional = list(code.co_varnames[: code.co_argcount])
    keyword_only = list(code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount])
    values = plain.__defaults__ or ()
    defaults = dict(zip(positional[len(positional) - len(values) :], values, strict=True))
    defaults.update(plain.__kwdefaults__ or {})
    if isinstance(function, MethodType):
        positional = positional[1:]
    takes_any_keyword = bool(code.co_flags & _HAS_KEYWORDS)
    annotations = read_annotations(plain, strict=strict)
    return Signature(positional, keyword_only, defaults, annotations, takes_any_keyword=takes_any_keyword)


def _inspected(function: Callable[..., Any], *, strict: bool) -> Signature:
    import inspect  # see the module docstring

    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return Signature(["payload"], [], {}, {}, takes_any_keyword=False)
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return Signature(
        [item.name for item in parameters if item.kind in by_position],
        [item.name for item in parameters if item.kind is inspect.Parameter.KEYWORD_ONLY],
        {item.name: item.default for item in parameters if item.default is not item.empty},
        read_annotations(inspect.unwrap(function), strict=strict),
        takes_any_keyword=any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters),
    )


def read_annotations(function: Any, *, strict: bool = False) -> dict[str, Any]:
    """Return the annotations as objects. One that cannot be resolved leaves none at all; if `strict`, as above."""
    target = function if isinstance(function, FunctionType | MethodType) else getattr(function, "func", None)
    target = target or type(function).__call__
    raw = dict(getattr(target, "__annotations__", {}))
    if not any(isinstance(hint, str) for hint in raw.values()):
        return raw
    try:
        return resolve_hints(target)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        if not strict:
            return {}
        raise UnresolvedAnnotation(_explain_annotation(target, raw, error)) from None


def resolve_hints(thing: Any) -> dict[str, Any]:
    """Return the annotations of a function or a class, `Annotated` whole; what it cannot resolve `typing` raises.

    Of what stands inside of a function that still runs, names of that function count too.
    """
    import typing  # only annotations written as strings need it

    try:
        return typing.get_type_hints(thing, include_extras=True)
    except NameError:
        owner = thing.__qualname__.rpartition(".<locals>.")[0].rpartition(".")[2]
        frame = sys._getframe(1)
        while frame is not None and (
            frame.f_code.co_name != owner or frame.f_globals.get("__name__") != thing.__module__
        ):
            frame = frame.f_back  # type: ignore[assignment]  # None behind the outermost
        if frame is None:
            raise
        return typing.get_type_hints(thing, localns=frame.f_locals, include_extras=True)


def _explain_annotation(target: Any, annotations: dict[str, Any], error: Exception) -> str:
    """Name the parameter whose annotation is the cause."""
    import typing  # loaded already

    cause = f"an annotation of {target.__qualname__}"
    for name, annotation in annotations.items():
        alone = type("alone", (), {"__annotations__": {name: annotation}})
        try:
            typing.get_type_hints(alone, globalns=target.__globals__)
        except Exception:  # noqa: BLE001 - the boundary to what a user has written as an annotation
            cause = f"the annotation {annotation!r} of {'the result' if name == 'return' else name}"
            break
    return f"{cause} cannot be resolved: {type(error).__name__}: {error}; {way_out_of(error, 'function')}"


def way_out_of(error: Exception, owner: str) -> str:
    """Say what to do about an annotation of a function or class (`owner`) that cannot be resolved."""
    if isinstance(error, SyntaxError):
        return "write a type as Python has them"
    return f"import the name where the {owner} stands, not only for type checkers"


def is_coroutine_function(function: Any) -> bool:
    """Tell whether the result of `function` needs an event loop: to be awaited, or iterated with `async for`."""
    return bool(_flags_of(function) & _NEEDS_LOOP)


def is_generator_function(function: Any, result_hint: Any = ...) -> bool | None:
    """Tell whether `function` yields items; None where neither its code nor the hint of its result says so."""
    flags = _flags_of(function)
    if flags & (_NEEDS_LOOP | _IS_GENERATOR):
        return bool(flags & (_IS_GENERATOR | _IS_ASYNC_GENERATOR))
    # It may return the generator of another function.
    name = getattr(getattr(result_hint, "__origin__", result_hint), "__name__", "")
    if name in ("Iterator", "Generator", "AsyncIterator", "AsyncGenerator"):
        return True
    return None if result_hint is ... or name in ("Any", "Iterable", "AsyncIterable", "object") else False


def _flags_of(function: Any) -> int:
    while hasattr(function, "func"):
        function = function.func
    code = _code_of(function)
    return 0 if code is None else code.co_flags


def source_of(function: Any, project: str) -> dict[str, Any] | None:
    """Return `{"file", "line"}` of the definition; a file under the folder `project` is relative to that.

    None for callables without Python code.
    """
    while hasattr(function, "__wrapped__") or hasattr(function, "func"):
        function = getattr(function, "__wrapped__", None) or function.func
    code = _code_of(function)
    if code is None:
        return None
    file = code.co_filename.removeprefix(project.rstrip("/") + "/") if project else code.co_filename
    return {"file": file, "line": code.co_firstlineno}


def _code_of(function: Any) -> CodeType | None:
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return code or getattr(vars(type(function)).get("__call__"), "__code__", None)
