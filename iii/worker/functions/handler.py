"""A handler: how the runner calls it, and what its registration tells the engine about it.

Signature and hints are read once, at registration. Per call only keys are looked at, and the converters run.
"""

from __future__ import annotations

from iii.errors import ErrorCode, InvocationError
from iii.worker.codec.stdlib_json import encode_with_json
from iii.worker.functions.schema import (
    first_paragraph,
    format_from_hint,
    format_from_parameters,
    integer_from,
    is_mapping,
    result_format_from_hint,
)
from iii.worker.functions.signature import is_coroutine_function, is_generator_function, read_signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from iii.worker.functions.conversion import Converter
    from iii.worker.functions.signature import Signature

# A single parameter of one of these names gets the payload whole.
WHOLE_NAMES = ("payload", "data", "input")
# The parameter that gets the caller's metadata, and no key of the payload.
_HIDDEN = "metadata"
# Hints that a decoded JSON value satisfies without conversion.
_PLAIN_HINTS = (str, int, float, bool, dict, list)


class Handler:
    """The callable behind one function id. The first call of a typed function writes the `call` of all later ones.

    `is_slow` is the dispatcher's note that the last run took long: another thread should read meanwhile.
    `before_result` is the part of an answer's line between the invocation id and the result, `without_result` all that
    follows the id where there is none. `yields` tells whether it gives items, None where that is not known.
    """

    __slots__ = (
        *("before_result", "call", "function_id", "is_async", "is_slow", "takes_metadata", "without_result", "yields"),
    )

    def __init__(
        self, function_id: str, call: Callable[..., Any], *, is_async: bool, takes_metadata: bool, yields: bool | None
    ) -> None:
        self.function_id = function_id
        self.call = call
        self.is_async = is_async
        self.takes_metadata = takes_metadata
        self.yields = yields
        self.is_slow = False
        self.without_result = b',"function_id":%b}' % encode_with_json(function_id)
        self.before_result = self.without_result[:-1] + b',"result":'


def handler_from(function_id: str, function: Callable[..., Any]) -> Handler:
    """Wrap a handler that takes the payload as its first argument, and the metadata if a parameter has that name."""
    signature = read_signature(function)
    takes_metadata = _HIDDEN in signature.keyword_only or _HIDDEN in signature.positional[1:]
    is_async, call = is_coroutine_function(function), function
    name = signature.positional[0] if signature.positional else ""
    if signature.annotations.get(name) is int:

        def call(payload: Any, **metadata: Any) -> Any:
            return function(_converted(payload, name, integer_from, function_id), **metadata)

    yields = is_generator_function(function, signature.annotations.get("return", ...))
    return Handler(function_id, call, is_async=is_async, takes_metadata=takes_metadata, yields=yields)


def typed_handler_from(function_id: str, function: Callable[..., Any], *, by_name: bool = False) -> Handler:
    """Wrap a handler with typed parameters: the payload's keys become its keyword arguments.

    `by_name`: also where the only parameter would take the payload whole.
    """
    signature = read_signature(function, strict=True)
    converters = converters_from(signature)
    if not by_name and takes_whole_payload(signature):
        handler = handler_from(function_id, function)
        if converters:
            ((whole_name, whole_converter),) = converters.items()
            handler.call = lambda payload, **metadata: function(
                _converted(payload, whole_name, whole_converter, function_id), **metadata
            )
        return handler
    handler = Handler(
        function_id,
        function,
        is_async=is_coroutine_function(function),
        takes_metadata=_HIDDEN in signature.names,
        yields=is_generator_function(function, signature.annotations.get("return", ...)),
    )
    if signature.takes_any_keyword:
        handler.call = _call_by_any_name(function, function_id, signature, converters)
        return handler

    def first_call(payload: Any, metadata: Any = None) -> Any:
        from iii.worker.functions.construction import write_call  # a function that is never called needs none

        handler.call = write_call(
            function,
            signature,
            converters,
            lambda payload: arguments_from(payload, signature, function_id),
            lambda value, name, error: _inconvertible(converters[name], value, name, error, function_id),
        )
        return handler.call(payload, metadata)

    handler.call = first_call
    return handler


def _call_by_any_name(
    function: Callable[..., Any], function_id: str, signature: Signature, converters: dict[str, Converter]
) -> Callable[..., Any]:
    """Return what calls a function that takes any keyword."""
    takes_metadata = _HIDDEN in signature.names

    def call(payload: Any, metadata: Any = None) -> Any:
        arguments = arguments_from(payload, signature, function_id)
        for name, converter in converters.items():
            if name in arguments:
                arguments[name] = _converted(arguments[name], name, converter, function_id)
        if takes_metadata:
            arguments[_HIDDEN] = metadata
        return function(**arguments)

    return call


def converters_from(signature: Signature) -> dict[str, Converter]:
    """Return a converter for each parameter whose type plain JSON does not satisfy."""
    hints = {name: signature.annotations.get(name) for name in signature.names if name != _HIDDEN}
    if all(hint is None or hint in _PLAIN_HINTS for hint in hints.values()):
        return {name: integer_from for name, hint in hints.items() if hint is int}
    from iii.worker.functions.conversion import converter_from_hint  # few workers need it

    converters = {name: converter_from_hint(hint) for name, hint in hints.items()}
    return {name: converter for name, converter in converters.items() if converter is not None}


def _converted(value: Any, name: str, converter: Converter, function_id: str) -> Any:
    try:
        return converter(value)
    except (ValueError, TypeError) as error:
        raise _inconvertible(converter, value, name, error, function_id) from None


def _inconvertible(converter: Converter, value: Any, name: str, error: Exception, function_id: str) -> InvocationError:
    from iii.worker.functions.conversion import find_unfit  # few workers need it

    unfit = find_unfit(converter, value, name)
    if unfit is not None:
        return _unfit(function_id, unfit.path, unfit.expected, unfit.got)
    text, details = str(error), {"got": value}
    describe_errors = getattr(error, "errors", None)
    if callable(describe_errors):  # pydantic's: its own text repeats the value
        first = describe_errors(include_url=False)[0]
        name += "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        is_own = first["type"] in ("value_error", "assertion_error")
        text, details = first["msg"], {} if is_own else {"got": first["input"]}
    elif _has_raised(error, "__post_init__"):  # the user's sentence says what is wrong
        details = {}
    details |= {"path": name, "expected": text}
    return InvocationError(ErrorCode.INVALID_PAYLOAD, f"{function_id}: {name}: {text}", function_id, details=details)


def _has_raised(error: Exception, function_name: str) -> bool:
    """Tell whether an error comes out of a function of this name."""
    place = error.__traceback__
    while place is not None and place.tb_frame.f_code.co_name != function_name:
        place = place.tb_next
    return place is not None


def takes_whole_payload(signature: Signature) -> bool:
    """Tell whether a decorated handler wants the payload as it is: its only parameter has no type, or a dict's."""
    names = [name for name in signature.names if name != _HIDDEN]
    if len(names) != 1 or names[0] not in signature.positional:
        return False
    hint = signature.annotations.get(names[0])
    if hint is None or names[0] in WHOLE_NAMES:
        return True
    cls = getattr(hint, "__origin__", hint)
    if not isinstance(cls, type):
        return str(hint) == "typing.Any"
    return is_mapping(cls)


def arguments_from(payload: Any, signature: Signature, function_id: str) -> dict[str, Any]:
    """Return the keyword arguments in a payload. InvocationError `invalid_payload` names what does not fit."""
    payload = {} if payload is None else payload
    if not isinstance(payload, dict):
        raise _unfit(function_id, "$", "an object", payload)
    for name in signature.required:
        if name != _HIDDEN and name not in payload:
            raise _unfit(function_id, f"$.{name}", "a value", None)
    if not signature.takes_any_keyword:
        for name in payload:
            if name == _HIDDEN or name not in signature.names:
                raise _unfit(function_id, f"$.{name}", f"one of {', '.join(signature.names)}", name)
    return dict(payload)


def _unfit(function_id: str, path: str, expected: str, got: Any) -> InvocationError:
    text = f"{function_id}: {path} must be {expected}, got {got!r}"
    details = {"path": path, "expected": expected, "got": got}
    return InvocationError(ErrorCode.INVALID_PAYLOAD, text, function_id, details=details)


def describe(function: Callable[..., Any], *, typed: bool, by_name: bool = False) -> dict[str, Any]:
    """Return the `description`, `request_format` and `response_format` that docstring and hints give, or None."""
    signature = read_signature(function, strict=typed)
    if by_name or (typed and not takes_whole_payload(signature)):
        request: Any = format_from_parameters(signature, function.__doc__)
    else:
        first = signature.positional[:1]
        request = format_from_hint(signature.annotations.get(first[0])) if first else None
    return {
        "description": first_paragraph(function.__doc__),
        "request_format": request,
        "response_format": result_format_from_hint(signature.annotations.get("return")),
    }
