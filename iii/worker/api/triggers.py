"""Trigger types a worker provides, and triggers it binds: the objects user code holds, and the provider's duty.

A provider is told of each binding of its type (`registertrigger`), answers whether it accepts, and fires it by
calling the function. Handlers may be sync or async.
"""

from __future__ import annotations

from iii.errors import ErrorCode, InvocationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from iii.worker.codec.codec import Message


class TriggerConfig:
    """One binding, as its provider sees it. On unregister only `id` is known; look up your own record by it."""

    def __init__(
        self,
        id: str,
        function_id: str = "",
        config: Any = None,
        metadata: Any = None,
        namespace: str | None = None,
    ) -> None:
        self.id = id
        self.function_id = function_id
        self.config = config
        self.metadata = metadata
        self.namespace = namespace

    def request(self, payload: Any) -> dict[str, Any]:
        """Return the call that delivers an event: the function, in its namespace, with the binding's metadata."""
        fields = {"function_id": self.function_id, "metadata": self.metadata, "namespace": self.namespace}
        return {**{key: value for key, value in fields.items() if value is not None}, "payload": payload}

    def condition(self, payload: Any) -> dict[str, Any] | None:
        """Return the call that asks whether the event is wanted, None without a condition."""
        name = self.config.get("condition_function_id") if isinstance(self.config, dict) else None
        if not name:
            return None
        fields = {"function_id": name, "payload": payload, "namespace": self.namespace}
        return {key: value for key, value in fields.items() if value is not None or key == "payload"}


class TriggerHandler:
    """Base of a trigger type's provider. Both methods may be `async`; raise to refuse a binding."""

    def register_trigger(self, config: TriggerConfig) -> Any:
        """Start firing `config.function_id`."""
        raise NotImplementedError

    def unregister_trigger(self, config: TriggerConfig) -> Any:
        """Stop firing the binding `config.id`."""
        raise NotImplementedError


class Trigger:
    """A binding this worker made."""

    def __init__(self, id: str, unregister: Callable[[], None]) -> None:
        self.id = id
        self._unregister = unregister

    def unregister(self) -> None:
        """Remove the binding."""
        self._unregister()


class TriggerTypeRef:
    """A trigger type this worker provides."""

    def __init__(self, id: str, unregister: Callable[[], None]) -> None:
        self.id = id
        self._unregister = unregister

    def unregister(self) -> None:
        """Withdraw the type; its bindings wait for another provider."""
        self._unregister()


class FunctionRef:
    """A function this worker registered."""

    def __init__(self, id: str, unregister: Callable[[], None]) -> None:
        self.id = id
        self._unregister = unregister

    def unregister(self) -> None:
        """Withdraw the function; calls that have started finish."""
        self._unregister()


def config_from_message(message: Message) -> TriggerConfig:
    """Return the binding in a `registertrigger` or `unregistertrigger`."""
    return TriggerConfig(
        message["id"],
        message.get("function_id") or "",
        message.get("config"),
        message.get("metadata"),
        message.get("namespace"),
    )


def answer_from(message: Message, error: BaseException | None) -> Message:
    """Return the provider's answer to a `registertrigger`."""
    answer: Message = {
        "type": "triggerregistrationresult",
        "id": message["id"],
        "trigger_type": message["trigger_type"],
        "function_id": message.get("function_id") or "",
    }
    if error is not None:
        answer["error"] = refusal_from(error)
    return answer


def refusal_from(error: BaseException) -> dict[str, str]:
    """Return the error body of a provider that raised."""
    if isinstance(error, InvocationError):
        return {"code": error.code, "message": error.message}
    return {"code": ErrorCode.TRIGGER_REGISTRATION_FAILED, "message": str(error) or type(error).__name__}
