"""The session of a peer on a listener with rules: every message is checked, in order, before it reaches the router.

An RBAC session holds messages against its client's permissions, asks the listener's hooks about registrations, and
sends calls through its middleware. What is denied is answered or dropped here. The permissions themselves are decided
by `iii/engine/security/rbac.py`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from iii.engine.gateway.authentication import AuthPolicy, start_check
from iii.engine.gateway.session import PeerSession, SessionHost
from iii.engine.routing.events import Notice
from iii.engine.routing.registry import Function
from iii.engine.security.rbac import Permissions, Rules, function_ids_in
from iii.errors import ErrorCode, InvocationError, RemoteProtocolError
from iii.protocol import messages as m
from iii.protocol.codec import decode, decode_object, decode_value, encode, encode_error, encode_value

if TYPE_CHECKING:
    from iii.engine.transport.websocket import WebSocketConnection

# Messages that may wait for a hook's answer before the connection is paused.
MAX_WAITING = 256
# The field of a payload that names the caller (public contract).
_CALLER = "_caller_worker_id"
# Builtin functions whose answers are cut to the functions that the session may call.
_LISTINGS = ("engine::functions::list", "engine::functions::info")
# Functions that call other functions for their caller: the session must be allowed to call those, too.
_DELEGATING_FUNCTIONS = ("engine::register_trigger", "engine::queue::enqueue", "action::enqueue")

_Registration = m.RegisterFunction | m.RegisterTrigger | m.RegisterTriggerType


class _Hook(Struct, frozen=True):
    """How one type of registration is put to the listener's hook, and what of it the hook's answer may replace.

    `text_fields` maps keys of question and answer to attributes of the message. `json_fields` are replaced as well,
    `read_only_fields` are only in the question; their keys are the attributes.
    """

    label: str  # before the id, in the notice of a dropped registration
    function_id: Callable[[Rules], str | None]
    is_permitted: Callable[[Permissions, Any], bool]
    text_fields: dict[str, str]
    json_fields: tuple[str, ...] = ()
    read_only_fields: tuple[str, ...] = ()


_HOOKS: dict[type, _Hook] = {
    m.RegisterFunction: _Hook(
        label="",
        function_id=lambda rules: rules.on_function_registration_function_id,
        # The engine would send a secret of this machine to the URL of a function with `auth`.
        is_permitted=lambda permissions, message: (
            permissions.may_register_functions and not _as_object(message.invocation).get("auth")
        ),
        text_fields={"function_id": "id", "description": "description"},
        json_fields=("metadata",),
    ),
    m.RegisterTrigger: _Hook(
        label="trigger ",
        function_id=lambda rules: rules.on_trigger_registration_function_id,
        is_permitted=lambda permissions, message: permissions.may_bind_to(message.trigger_type),
        text_fields={"trigger_id": "id", "trigger_type": "trigger_type", "function_id": "function_id"},
        json_fields=("config",),
        read_only_fields=("metadata",),
    ),
    m.RegisterTriggerType: _Hook(
        label="trigger type ",
        function_id=lambda rules: rules.on_trigger_type_registration_function_id,
        is_permitted=lambda permissions, _: permissions.may_register_trigger_types,
        text_fields={"trigger_type_id": "id", "description": "description"},
    ),
}


class RbacSession(PeerSession):
    """A peer whose messages are checked."""

    def __init__(
        self, connection: WebSocketConnection, host: SessionHost, policy: AuthPolicy, permissions: Permissions
    ) -> None:
        super().__init__(connection, host)
        self._policy = policy
        self._permissions = permissions
        self._router = host.pump.router
        self._waiting: deque[bytes] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_checking = False

    def on_closed(self) -> None:
        for task in self._tasks:
            task.cancel()
        super().on_closed()

    def flush(self) -> None:
        """Write the outbox; the ids in its calls lose the session's prefix, as the session registered them without."""
        if self._permissions.auth.function_registration_prefix:
            self.peer.outbox[:] = map(self._without_prefix, self.peer.outbox)
        super().flush()

    def _without_prefix(self, line: bytes) -> bytes:
        try:
            message = decode(line)
        except RemoteProtocolError:
            return line  # from a worker whose lines the engine does not check; the session's SDK rejects it
        if not isinstance(message, m.InvokeFunction):
            return line
        message.function_id = self._permissions.own_id(message.function_id)
        return encode(message)

    def _route(self, lines: list[bytes]) -> None:
        self._waiting.extend(lines)
        if len(self._waiting) > MAX_WAITING:
            self._connection.pause()
        if not self._is_checking:
            self._is_checking = True
            self._start(self._check_waiting())

    def _start(self, check: Coroutine[Any, Any, None]) -> None:
        task = start_check(self._connection, check, name=self.peer.name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check_waiting(self) -> None:
        while self._waiting:
            line = await self._checked(self._waiting.popleft())
            super()._route([] if line is None else [line])
        self._is_checking = False
        self._connection.resume()

    async def _checked(self, line: bytes) -> bytes | None:
        """Return the line to route for a message; None if it is denied, or answered in another way."""
        try:
            message = decode(line)
        except RemoteProtocolError:
            return line  # the message pump rejects it, as any other line
        is_passed = True
        if isinstance(message, m.InvokeFunction):
            is_passed = self._check_call(message)
        elif isinstance(message, _Registration):
            is_passed = await self._check_registration(message)
        elif isinstance(message, m.UnregisterFunction):
            message.id = self._permissions.registered_id(message.id)
        elif isinstance(message, m.RegisterAction):
            # An action sees the calls of all peers: only the project's own workers may have one.
            self._drop(f"action {message.id}")
            is_passed = False
        else:
            return line
        return encode(message) if is_passed else None

    def _drop(self, registration: str) -> None:
        self._host.counters["dropped_by_rules"] += 1
        self._router.events.append(Notice(self.peer.name, f"not registered: {registration}", "dropped_by_rules"))

    def _check_call(self, call: m.InvokeFunction) -> bool:
        """Name the caller in a call, and return True; False if it is denied, or answered in another way."""
        namespace = call.namespace or m.DEFAULT_NAMESPACE
        function = self._router.registry.find(namespace, call.function_id)
        is_builtin = function is not None and any(peer.kind == "engine" for peer in function.providers)
        denial = self._denial_of(call, namespace)
        if denial is not None:
            self._answer(call, encode_error(m.ErrorBody(ErrorCode.FORBIDDEN, denial)))
        elif is_builtin and call.function_id in _LISTINGS:
            self._start(self._answer_with(call, self._permitted_listing(call)))
        elif (middleware := self._policy.middleware_function_id) and not is_builtin:
            question = {
                "function_id": call.function_id,
                "payload": m.or_null(call.data),
                "action": m.or_null(call.action),
                "context": self._permissions.auth.context,
                "namespace": namespace,
            }
            answer = self._policy.engine_client.call(middleware, question, namespace=namespace, metadata=call.metadata)
            self._start(self._answer_with(call, answer))
        else:
            self._name_caller(call, function)
            return True
        return False

    def _name_caller(self, call: m.InvokeFunction, function: Function | None) -> None:
        """Name the caller in the payload: the public contract of listeners with rules.

        What the client wrote in that field is removed. The field stays away if the function's schema does not admit it.
        """
        if m.is_empty(call.action) and bytes(call.data)[:1] == b"{":
            payload = msgspec.json.decode(call.data, type=dict[str, Raw])
            payload.pop(_CALLER, None)
            schema = {} if function is None else _as_object(function.declaration.request_format)
            if schema.get("additionalProperties") is not False or _CALLER in schema.get("properties", {}):
                payload[_CALLER] = Raw(encode_value(self.peer.id))
            call.data = Raw(encode_value(payload))

    def _denial_of(self, call: m.InvokeFunction, namespace: str) -> str | None:
        """Return why the session may not make this call; None if it may."""
        function_ids = [call.function_id]
        if call.function_id in _DELEGATING_FUNCTIONS:
            function_ids += function_ids_in(_as_object(call.data))
        for function_id in function_ids:
            if not self._may_invoke(namespace, function_id):
                return self._permissions.denial(function_id)
        if call.function_id != "engine::workers::register":
            return None
        own_namespace = _as_object(call.data).get("namespace")
        return self._permissions.namespace_denial(str(own_namespace or m.DEFAULT_NAMESPACE))

    def _may_invoke(self, namespace: str, function_id: str) -> bool:
        function = self._router.registry.find(namespace, function_id)
        return self._permissions.may_invoke(namespace, function_id, function.metadata if function else {})

    async def _permitted_listing(self, call: m.InvokeFunction) -> Raw:
        """Return a listing without the functions that the session may not call, an info with them as `forbidden`."""

        def may_see(row: dict[str, Any]) -> bool:
            return self._may_invoke(row.get("namespace") or m.DEFAULT_NAMESPACE, row["function_id"])

        query = _as_object(call.data)
        if isinstance(query.get("function_id"), str) and not may_see(query):
            raise InvocationError(ErrorCode.FORBIDDEN, self._permissions.denial(query["function_id"]))
        listing = decode_value(await self._policy.engine_client.call(call.function_id, call.data))
        rows = listing.get("functions")
        if isinstance(rows, list):
            listing["functions"] = [
                row if may_see(row) else {"function_id": row["function_id"], "error": "forbidden"}
                for row in rows
                if call.function_id.endswith("::info") or may_see(row)
            ]
        return Raw(encode_value(listing))

    async def _answer_with(self, call: m.InvokeFunction, answer: Awaitable[Raw]) -> None:
        try:
            self._answer(call, m.ABSENT, await answer)
        except InvocationError as failure:
            self._answer(call, encode_error(m.ErrorBody(failure.code, failure.message)))
        self._pump.turn()

    def _answer(self, call: m.InvokeFunction, error: Raw, result: Raw = m.ABSENT) -> None:
        if call.invocation_id is not None:
            answer = m.InvocationResult(call.invocation_id, call.function_id, result=result, error=error)
            self._router.calls.send(self.peer, encode(answer))

    async def _check_registration(self, message: _Registration) -> bool:
        """Change a registration as its hook and the session's prefix ask for; return False if it is denied."""
        hook = _HOOKS[type(message)]
        registered = f"{hook.label}{message.id}"
        answer = await self._ask(hook, message) if hook.is_permitted(self._permissions, message) else None
        if answer is None:
            self._drop(registered)
            return False
        for key, attribute in hook.text_fields.items():
            if isinstance(answer.get(key), str):
                setattr(message, attribute, answer[key])
        for key in hook.json_fields:
            if key in answer:
                setattr(message, key, Raw(encode_value(answer[key])))
        if isinstance(message, m.RegisterFunction):
            message.id = self._permissions.registered_id(message.id)
        elif isinstance(message, m.RegisterTrigger):
            message.function_id = self._permissions.registered_id(message.function_id)
            return self._may_bind(message)
        return True

    async def _ask(self, hook: _Hook, message: _Registration) -> dict[str, Any] | None:
        """Return the answer of the hook, `{}` if there is none; None if it denies: any answer but an object does."""
        if self._policy.rules is None or (function_id := hook.function_id(self._policy.rules)) is None:
            return {}
        question: dict[str, Any] = {key: getattr(message, attribute) for key, attribute in hook.text_fields.items()}
        for key in hook.json_fields + hook.read_only_fields:
            question[key] = m.or_null(getattr(message, key))
        if isinstance(message, m.RegisterFunction):
            question["namespace"] = self.peer.namespace
        elif isinstance(message, m.RegisterTrigger):
            question["namespace"] = message.namespace or m.DEFAULT_NAMESPACE
        question["context"] = self._permissions.auth.context
        try:
            answer = decode_value(await self._policy.engine_client.call(function_id, question))
        except (InvocationError, ValueError):
            return None
        return answer if isinstance(answer, dict) else None

    def _may_bind(self, message: m.RegisterTrigger) -> bool:
        """Whether the session may call what the trigger calls later; answer with an error if not."""
        namespace = message.namespace or m.DEFAULT_NAMESPACE
        function_ids = [message.function_id, *function_ids_in(_as_object(message.config))]
        denied = next((id for id in function_ids if not self._may_invoke(namespace, id)), None)
        if denied is None:
            return True
        body = m.ErrorBody(ErrorCode.FORBIDDEN, f"function '{denied}' not allowed in namespace '{namespace}'")
        answer = m.TriggerRegistrationResult(message.id, message.trigger_type, message.function_id, encode_error(body))
        self._router.calls.send(self.peer, encode(answer))
        return False


def _as_object(data: Raw) -> dict[str, Any]:
    try:
        return decode_object(data)
    except ValueError:  # e.g. a lone surrogate: the callee refuses the call
        return {}
