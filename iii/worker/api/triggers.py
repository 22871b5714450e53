"""Triggers that a worker binds, and trigger types that it provides: the objects user code holds, and their messages.

The engine tells a provider of each binding of its type (`registertrigger`); the provider accepts or refuses it, and
fires it by calling the function. A provider's methods may be sync or async.
"""

from __future__ import annotations

from iii.errors import ErrorCode, InvocationError
from iii.worker.codec.text import text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol, Required, TypedDict

    from iii.worker.api.requests import TriggerRequestInput
    from iii.worker.codec.codec import Message

    class TriggerInput(TypedDict, total=False):
        """What `register_trigger` takes. `trigger_namespace` is the provider's, `namespace` the function's."""

        type: Required[str]
        function_id: Required[str]
        config: Mapping[str, object] | None
        metadata: Any
        namespace: str | None
        trigger_namespace: str | None

    class TriggerTypeInput(TypedDict, total=False):
        """What `register_trigger_type` takes. The formats are of a binding's config, its event, and the answer to it.

        Each is a JSON Schema, or a class that describes one as the type hint of a parameter does.
        """

        id: Required[str]
        description: str | None
        trigger_request_format: dict[str, Any] | type | None
        call_request_format: dict[str, Any] | type | None
        call_response_format: dict[str, Any] | type | None

    class Registers(Protocol):
        """The part of a worker that a `TriggerTypeRef` uses."""

        def register_trigger(self, trigger: TriggerInput, /) -> Trigger: ...
        def register_function(
            self, function_id: str, handler: Callable[..., Any], *, description: str | None = None
        ) -> FunctionRef: ...
else:
    TriggerInput = TriggerTypeInput = dict


class RegisterTriggerInput:
    """What `register_trigger` takes, as an object: the fields of `TriggerInput`."""

    def __init__(
        self,
        type: str,
        function_id: str,
        config: Any = None,
        metadata: Any = None,
        namespace: str | None = None,
        trigger_namespace: str | None = None,
    ) -> None:
        self.type = type
        self.function_id = function_id
        self.config = config
        self.metadata = metadata
        self.namespace = namespace
        self.trigger_namespace = trigger_namespace


class RegisterTriggerTypeInput:
    """What `register_trigger_type` takes, as an object: the fields of `TriggerTypeInput`."""

    def __init__(
        self, id: str, description: str = "", trigger_request_format: Any = None, call_request_format: Any = None
    ) -> None:
        self.id = id
        self.description = description
        self.trigger_request_format = trigger_request_format
        self.call_request_format = call_request_format


def _without_arguments(cls: type, _: Any) -> type:
    # The public SDK's classes are generic, `TriggerHandler[Config]`; typing would cost the SDK's import too much.
    return cls


class TriggerConfig:
    """One binding, as its provider sees it: `id`, the `function_id` to call, and `config`, checked by the provider.

    When a binding is removed only `id` is set; the provider finds its own record by it.
    """

    __class_getitem__: Any = classmethod(_without_arguments)

    def __init__(
        self, id: str, function_id: str = "", config: Any = None, metadata: Any = None, namespace: str | None = None
    ) -> None:
        self.id = id
        self.function_id = function_id
        self.config = config
        self.metadata = metadata
        self.namespace = namespace

    def payload_from(self, event: Any) -> Any:
        """Return what the function gets of an event: its arguments if the config says so, else the event itself.

        InvocationError `invalid_payload` when the event has no value for an argument that must have one.
        """
        if not isinstance(self.config, dict) or self.config.get("payload") != "arguments":
            return event
        from iii.arguments import Arguments  # few workers provide a trigger type

        arguments, found = Arguments(self.config.get("arguments") or {}).read(event)
        if found:
            text = f"the event gives {self.function_id} no arguments: {'; '.join(map(str, found))}"
            details = {"mistakes": [mistake.fields for mistake in found]}
            raise InvocationError(ErrorCode.INVALID_PAYLOAD, text, self.function_id, details=details)
        return arguments

    def request(self, event: Any) -> TriggerRequestInput:
        """Return the call that delivers an event: the function, in its namespace, with the binding's metadata.

        Errors as in `payload_from`.
        """
        request: TriggerRequestInput = {"function_id": self.function_id, "payload": self.payload_from(event)}
        if self.metadata is not None:
            request["metadata"] = self.metadata
        if self.namespace is not None:
            request["namespace"] = self.namespace
        return request

    def condition(self, event: Any) -> TriggerRequestInput | None:
        """Return the call that asks whether the function wants the event, None without a condition.

        The condition is the function that `condition_function_id` in the binding's config names. It gets the event
        itself, also where the function gets arguments.
        """
        function_id = self.config.get("condition_function_id") if isinstance(self.config, dict) else None
        return TriggerConfig(self.id, function_id, namespace=self.namespace).request(event) if function_id else None


class TriggerHandler:
    """Base of a trigger type's provider. Both methods may be `async`; an exception refuses the binding."""

    __class_getitem__: Any = classmethod(_without_arguments)

    def register_trigger(self, config: TriggerConfig, /) -> Any:
        """Start calling `config.function_id` for events that `config.config` selects."""
        raise NotImplementedError

    def unregister_trigger(self, config: TriggerConfig, /) -> Any:
        """Stop firing the binding `config.id`."""
        raise NotImplementedError


class _Registration:
    def __init__(self, id: str, unregister: Callable[[], None]) -> None:
        self.id = id
        self._unregister = unregister

    def unregister(self) -> None:
        """Withdraw the registration."""
        self._unregister()


class Trigger(_Registration):
    """A binding that this worker made; `unregister()` removes it."""


class TriggerTypeRef(_Registration):
    """A trigger type that this worker provides; after `unregister()` its bindings wait for another provider."""

    __class_getitem__: Any = classmethod(_without_arguments)

    def __init__(self, id: str, unregister: Callable[[], None], worker: Registers) -> None:
        super().__init__(id, unregister)
        self._worker = worker

    def register_trigger(self, function_id: str, config: Any, metadata: Any = None) -> Trigger:
        """Bind an event of this type to a function of the worker's namespace; as `Worker.register_trigger`."""
        dump = getattr(config, "model_dump", None)
        config = config if dump is None else dump()
        return self._worker.register_trigger(
            {"type": self.id, "function_id": function_id, "config": config, "metadata": metadata}
        )

    def register_function(
        self, function_id: str, handler: Callable[..., Any], *, description: str | None = None
    ) -> FunctionRef:
        """Offer a function for the events of this type; as `Worker.register_function`."""
        return self._worker.register_function(function_id, handler, description=description)


class FunctionRef(_Registration):
    """A function that this worker registered; calls that have started finish after `unregister()`."""


def fields_of(given: Any, *names: str) -> dict[str, Any]:
    """Return these fields of a dict or of an object; None for each that it has not."""
    if isinstance(given, dict):
        return {name: given.get(name) for name in names}
    return {name: getattr(given, name, None) for name in names}


def config_from_message(message: Message) -> TriggerConfig:
    """Return the binding in a `registertrigger` or `unregistertrigger`."""
    fields = (message.get(key) for key in ("config", "metadata", "namespace"))
    return TriggerConfig(message["id"], message.get("function_id") or "", *fields)


def answer_from(message: Message, error: BaseException | None) -> Message:
    """Return the provider's answer to a `registertrigger`; `error` is what the provider raised to refuse it."""
    answer: Message = {"type": "triggerregistrationresult", "function_id": message.get("function_id") or ""}
    answer |= {"id": message["id"], "trigger_type": message["trigger_type"]}
    if isinstance(error, InvocationError):
        answer["error"] = {"code": text_of(error.code), "message": text_of(error.message)}
    elif error is not None:
        text = text_of(error) or type(error).__name__
        answer["error"] = {"code": ErrorCode.TRIGGER_REGISTRATION_FAILED, "message": text}
    return answer
