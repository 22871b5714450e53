"""The session of a peer on a listener with rules: every message is checked, in order, before it reaches the router.

An RBAC session holds messages against its client's rights (`session_rights.py`), asks the listener's hooks about
registrations, and has the middleware run calls. Registrations are judged by the router, when they take effect.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from msgspec import Raw, Struct
from msgspec.structs import replace

from iii.engine.gateway.authentication import AuthPolicy, start_check
from iii.engine.gateway.middleware_proxy import MiddlewareProxies, through_middleware
from iii.engine.gateway.session import PeerSession, SessionHost
from iii.engine.gateway.session_rights import SessionRights, as_object
from iii.engine.routing.budget import MESSAGE_OVERHEAD
from iii.engine.routing.message_forms import CALLER, malformed_name, name_session, without_reserved
from iii.engine.routing.registry import Function
from iii.engine.security.rbac import Permissions, Rules
from iii.errors import ErrorCode, InvocationError, RemoteProtocolError
from iii.protocol import messages as m
from iii.protocol.codec import decode, decode_value, encode, encode_error, encode_value

if TYPE_CHECKING:
    from iii.engine.transport.websocket import WebSocketConnection

# Messages, and bytes of them, that may wait for a hook's answer before the connection is paused.
MAX_WAITING, MAX_WAITING_BYTES = 256, 1024 * 1024
# Close code of a session whose listener asks another auth function from now on (RFC 6455, 7.4.1).
RULES_CHANGED = 1008

HOOK_DENIES = "the listener's hook denies it"

_Registration = m.RegisterFunction | m.RegisterTrigger | m.RegisterTriggerType


class _Hook(Struct, frozen=True):
    """How one type of registration is put to the listener's hook, and what of it the hook's answer may replace.

    `text_fields` maps keys of question and answer to attributes of the message. `json_fields` are replaced as well,
    `read_only_fields` are only in the question; their keys are the attributes.
    """

    function_id: Callable[[Rules], str | None]
    text_fields: dict[str, str]
    json_fields: tuple[str, ...] = ()
    read_only_fields: tuple[str, ...] = ()


_HOOKS: dict[type, _Hook] = {
    m.RegisterFunction: _Hook(
        function_id=lambda rules: rules.on_function_registration_function_id,
        text_fields={"function_id": "id", "description": "description"},
        json_fields=("metadata",),
    ),
    m.RegisterTrigger: _Hook(
        function_id=lambda rules: rules.on_trigger_registration_function_id,
        text_fields={"trigger_id": "id", "trigger_type": "trigger_type", "function_id": "function_id"},
        json_fields=("config",),
        read_only_fields=("metadata",),
    ),
    m.RegisterTriggerType: _Hook(
        function_id=lambda rules: rules.on_trigger_type_registration_function_id,
        text_fields={"trigger_type_id": "id", "description": "description"},
    ),
}


class RbacSession(PeerSession):
    """A peer whose messages are checked."""

    def __init__(
        self,
        connection: WebSocketConnection,
        host: SessionHost,
        policy: AuthPolicy,
        permissions: Permissions,
        proxies: MiddlewareProxies,
    ) -> None:
        super().__init__(connection, host)
        self._router = host.pump.router
        self._proxies = proxies
        self.rights = SessionRights(self._router, self.peer, policy, permissions, proxies)
        self.peer.owner.rights = self.rights
        self._budget = self._router.calls.budget
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0  # with what is being checked
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_checking = False

    @property
    def _permissions(self) -> Permissions:
        return self.rights.permissions

    def on_closed(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._waiting.clear()
        self._release(self._waiting_bytes)
        super().on_closed()
        self._proxies.forget_unused()

    def _release(self, size: int) -> None:
        self._waiting_bytes -= size
        self._budget.release(self.peer, size)

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
        if isinstance(message, m.InvokeFunction | m.ObserverAdded | m.ObserverRemoved):
            message.function_id = self._permissions.own_id(message.function_id)
        elif isinstance(message, m.FunctionRegistered):
            message.id = self._permissions.own_id(message.id)
        else:
            return line
        return encode(message)

    def _take_telemetry(self, data: bytes) -> bool:
        return self._host.refuse_telemetry(data)

    def _route(self, lines: list[bytes]) -> None:
        self._waiting.extend(lines)
        size = sum(len(line) + MESSAGE_OVERHEAD for line in lines)
        self._waiting_bytes += size
        self._budget.hold(self.peer, size)
        if len(self._waiting) > MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
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
            line = self._waiting.popleft()
            size = len(line) + MESSAGE_OVERHEAD
            checked = await self._checked(line)
            self._release(size)  # from here on the router holds it, or nothing does
            super()._route([] if checked is None else [checked])
        self._is_checking = False
        self._connection.resume()

    async def _checked(self, line: bytes) -> bytes | None:
        """Return the line to route for a message; None if it is refused."""
        try:
            message = decode(line)
        except RemoteProtocolError:
            return line  # the message pump rejects it, as any other line
        is_passed = True
        if isinstance(message, m.InvokeFunction):
            is_durable_trigger = message.function_id == "engine::register_trigger"
            is_passed = not is_durable_trigger or await self._check_durable_trigger(message)
            is_passed = is_passed and self._check_call(message)
        elif isinstance(message, _Registration):
            is_passed = await self._check_registration(message)
        elif isinstance(message, m.UnregisterFunction):
            message.id = self._permissions.registered_id(message.id)
        elif (why := self.rights.refusal(message)) is not None:
            self._router.registrations.refuse(self.peer, message, why)
            is_passed = False
        else:
            return line
        return encode(message) if is_passed else None

    # Calls

    def _check_call(self, call: m.InvokeFunction) -> bool:
        """Make a call what is to run, with what the engine says of its caller; return False if it is refused."""
        why = self.rights.refusal(call)
        if why is not None:
            code = ErrorCode.FORBIDDEN if malformed_name(call) is None else ErrorCode.INVALID_MESSAGE
            self._refuse_call(call, code, why)
            return False
        function = self._router.registry.find(call.namespace or m.DEFAULT_NAMESPACE, call.function_id)
        is_builtin = function is not None and any(peer.kind == "engine" for peer in function.providers)
        has_middleware = self.rights.policy.middleware_function_id is not None and not is_builtin
        may_be_told = not has_middleware and _admits_caller(function)
        caller_id = self.peer.id if may_be_told else None
        name_session(call, caller_id, in_flight=self._router.calls.in_flight, peer=self.peer)
        if has_middleware and (instead := through_middleware(self.rights, call)) is not None:
            call.function_id, call.data = instead.function_id, instead.data
            if not m.is_empty(call.action) and as_object(call.action).get("type") != "void":
                call.action = m.ABSENT  # it is in the question: the middleware has to honor it
        return True

    def _refuse_call(self, call: m.InvokeFunction, code: str, why: str) -> None:
        if call.invocation_id is not None:
            error = encode_error(m.ErrorBody(code, why))
            self._router.calls.send(
                self.peer, encode(m.InvocationResult(call.invocation_id, call.function_id, error=error))
            )
        else:
            self._router.registrations.refuse(self.peer, call, why)

    # Registrations

    async def _check_registration(self, message: _Registration) -> bool:
        """Change a registration as its hook and the session's prefix ask for; return False if the hook denies it.

        Whether the session may make it is decided when it takes effect.
        """
        if not isinstance(message, m.RegisterTriggerType):
            message.metadata = without_reserved(message.metadata)
        if not await self._consult_hook(message):
            self._router.registrations.refuse(self.peer, message, HOOK_DENIES)
            return False
        if isinstance(message, m.RegisterFunction):
            message.id = self._permissions.registered_id(message.id)
        elif isinstance(message, m.RegisterTrigger):
            message.function_id = self._permissions.registered_id(message.function_id)
            if not self._router.calls.starting and (why := self.rights.refusal(message)) is not None:
                self._router.registrations.refuse(self.peer, message, why)  # at once: it may wait for a namespace
                return False
        return True

    async def _check_durable_trigger(self, call: m.InvokeFunction) -> bool:
        """Ask the hook about a trigger that is registered by a call; return False if it denies it."""
        payload = as_object(call.data)
        message = m.RegisterTrigger("", str(payload.get("trigger_type")), str(payload.get("function_id")))
        message.config = Raw(encode_value(payload.get("config")))
        message.metadata = Raw(encode_value(payload.get("metadata")))
        if not await self._consult_hook(message):
            self._refuse_call(call, ErrorCode.FORBIDDEN, HOOK_DENIES)
            return False
        if "function_id" in payload:
            payload["function_id"] = self._permissions.registered_id(message.function_id)
        call.data = Raw(encode_value(payload | {"trigger_type": message.trigger_type, "config": message.config}))
        return True

    async def _consult_hook(self, message: _Registration) -> bool:
        """Change a registration as its hook asks for; return False if the hook denies it.

        The hook is not asked about what the rules forbid.
        """
        hook = _HOOKS[type(message)]
        answer = await self._ask(hook, message) if self.rights.permits(message) else {}
        if answer is None:
            return False
        for key, attribute in hook.text_fields.items():
            if isinstance(answer.get(key), str):
                setattr(message, attribute, answer[key])
        for key in hook.json_fields:
            if key in answer:
                setattr(message, key, Raw(encode_value(answer[key])))
        return True

    async def _ask(self, hook: _Hook, message: _Registration) -> dict[str, Any] | None:
        """Return the answer of the hook, `{}` if there is none; None if it denies: any answer but an object does."""
        rules = self.rights.policy.rules
        if rules is None or (function_id := hook.function_id(rules)) is None:
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
            answer = decode_value(await self.rights.policy.engine_client.call(function_id, question))
        except (InvocationError, ValueError):
            return None
        return answer if isinstance(answer, dict) else None

    # The listener's rules change

    def apply(self, policy: AuthPolicy) -> None:
        """Hold this session to other rules from now on; one that another auth function let in has to come again."""
        former, permissions = self.rights.policy, self._permissions
        auth_functions = [rules.auth_function_id if rules else None for rules in (former.rules, policy.rules)]
        self.rights.policy = policy
        self.rights.permissions = replace(permissions, rules=policy.rules)
        if auth_functions[0] != auth_functions[1]:
            self._connection.close(RULES_CHANGED)


def _admits_caller(function: Function | None) -> bool:
    """Whether a function's schema admits the field that names the caller."""
    schema = {} if function is None else as_object(function.declaration.request_format)
    return schema.get("additionalProperties") is not False or CALLER in schema.get("properties", {})
