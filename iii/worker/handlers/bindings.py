"""What a decorator does: one registration of the function, and one trigger for each decorator that stands on it."""

from __future__ import annotations

from types import FunctionType

from iii.worker.functions.schema import unreadable_in
from iii.worker.functions.signature import UnresolvedAnnotation, read_signature, source_of
from iii.worker.handlers.arguments import Undecided, event_arguments, http_arguments, parameters_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Literal, Protocol, TypedDict

    from iii.worker.api.options import FunctionOptions
    from iii.worker.api.triggers import FunctionRef, Trigger, TriggerInput

    class Registry(Protocol):
        """What of a worker the decorators need."""

        _typed_functions: dict[Callable[..., Any], tuple[str, bool]]

        def _register(
            self,
            function_id: str,
            handler: Callable[..., Any],
            options: FunctionOptions,
            *,
            typed: bool,
            by_name: bool = False,
        ) -> FunctionRef: ...
        def register_trigger(self, trigger: TriggerInput) -> Trigger: ...
        def _function_prefix(self) -> str: ...

    class BindingOptions(TypedDict, total=False):
        """The keyword arguments of every decorator.

        `arguments` are constants by parameter, or places such as `FromEvent("key")`. `metadata` reaches the function
        beside every event, in its parameter `metadata`.
        """

        function_id: str
        arguments: Mapping[str, object]
        metadata: Any
        condition_function_id: str

    class RouteOptions(BindingOptions, total=False):
        """Of http: `status` of a plain result (200 unless given)."""

        status: int
        middleware_function_ids: list[str]
        cancel: bool

    class CronOptions(BindingOptions, total=False):
        """Of cron: the trigger's config."""

        timezone: str
        name: str
        catch_up: Literal["none", "once"]
        overlap: Literal["skip", "queue"]


# The options of a decorator that are no keys of the trigger's config.
_OWN = ("function_id", "arguments", "metadata")


def bind(
    worker: Registry,
    function: Callable[..., Any],
    trigger_type: str,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Register the function if this worker has not yet, and bind it to events that give it its arguments.

    TypeError with file and line for a parameter whose source cannot be decided.
    """
    function = undecorated(function)
    constants = options.get("arguments") or {}
    try:
        _check(function)
        signature = read_signature(function, strict=True)
        if signature.takes_any_keyword:
            raise Undecided(
                "it takes any keyword, and an event gives arguments by name; name the parameters, and mark a function "
                "that stands for another one by functools.wraps"
            )
        parameters = parameters_from(signature)
        if trigger_type == "http":
            arguments = http_arguments(parameters, config["api_path"], config["http_method"], constants)
        else:
            arguments = event_arguments(parameters, trigger_type, config.get("api_path", ""), constants)
    except (Undecided, UnresolvedAnnotation) as error:
        raise _placed(function, error) from None
    function_id, takes_arguments = register(worker, function, options.get("function_id"))
    settings = {key: value for key, value in {**config, **options}.items() if key not in _OWN and value is not None}
    if takes_arguments:
        settings |= {"payload": "arguments", "arguments": arguments}
    metadata = options.get("metadata")
    worker.register_trigger(
        {"type": trigger_type, "function_id": function_id, "config": settings, "metadata": metadata}
    )


def register(worker: Registry, function: Callable[..., Any], function_id: str | None) -> tuple[str, bool]:
    """Return the id of a function, and whether its payload is its arguments by name; register it unless that is done.

    One that `Worker.function` has registered to take the payload whole gets whole events. TypeError with file and line
    for what is no function with names, ValueError for a second id.
    """
    known = worker._typed_functions.get(function)
    if known is not None:
        if function_id not in (None, known[0]):
            way_out = f"give function_id={function_id!r} to the lowest decorator"
            raise ValueError(f"the function is {known[0]} already; {way_out}")
        return known
    try:
        _check(function)
        for name, hint in read_signature(function, strict=True).annotations.items():
            unreadable = None if name in ("return", "metadata") else unreadable_in(hint)
            if unreadable is not None:
                shown = getattr(unreadable, "__name__", None) if isinstance(unreadable, type) else str(unreadable)
                raise Undecided(
                    f"{name} is a {shown}, and no JSON becomes one; take a type that JSON holds or a dataclass, and "
                    "make it of that"
                )
        if function_id is None:
            name = getattr(function, "__name__", "")
            if not name.isidentifier():
                raise Undecided(f"{function!r} has no name; give function_id='service::name'")
            function_id = f"{worker._function_prefix()}::{name}"
    except (Undecided, UnresolvedAnnotation) as error:
        raise _placed(function, error) from None
    worker._register(function_id, function, {}, typed=True, by_name=True)
    return worker._typed_functions[function]


def undecorated(function: Any) -> Any:
    """Return the function itself of one that has a queue."""
    return getattr(function, "function", function)


def _check(function: Any) -> None:
    if not callable(function):
        raise Undecided(f"{function!r} cannot be called; the decorator stands above a function")
    if isinstance(function, type):
        raise Undecided(f"{function.__name__} is a class; decorate a function that makes one")
    if not isinstance(function, FunctionType):
        return
    code = function.__code__
    first = code.co_varnames[0] if code.co_argcount else ""
    owner = function.__qualname__.rpartition(".")[0]
    if first in ("self", "cls") and owner and not owner.endswith("<locals>"):
        raise Undecided(f"there is no {first} to call this method with; decorate a bound one: decorator(object.method)")
    if code.co_posonlyargcount:
        raise Undecided(f"{first} can be given by position only, and arguments have names; take the / out")


def _placed(function: Any, error: TypeError) -> TypeError:
    """Return the error with file, line and name of the function before it, as far as it has them."""
    source = source_of(function, "")
    name = getattr(function, "__name__", None)
    where = f"{source['file']}:{source['line']}: " if source else ""
    return TypeError(f"{where}{name}(): {error}" if name else f"{where}{error}")
