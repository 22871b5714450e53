"""The gate between a session with rules and the router: every message of such a connection passes here, in order.

Asks the listener's auth function who comes, its hooks about registrations, its middleware about calls; what may not
be is answered or dropped here and never reaches the router. Decisions are `access.py`'s. Called by the gateway for
connections of listeners that have rules or a middleware.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from iii.engine.gateway.authentication import Terms, Visitor
from iii.engine.gateway.session import Carrier, Link, TelemetryLink
from iii.engine.routing.events import Notice
from iii.engine.routing.registry import Function
from iii.engine.security.rbac import UNASKED, Session, functions_named_in
from iii.errors import ErrorCode, InvocationError, RemoteProtocolError
from iii.protocol import messages as m
from iii.protocol.codec import decode, decode_object, decode_value, encode, encode_error, encode_value
from iii.protocol.messages import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from iii.engine.transport.websocket import WebSocket

# Messages that wait for a hook's answer before the connection is read on.
MAX_WAITING = 256
# Close code of a connection whose checkpoint has a bug (RFC 6455, 7.4.1).
BROKEN = 1011
# The field of a payload that names the caller (public contract).
_CALLER = "_caller_worker_id"
# Listings whose rows a session may only partly see.
_LISTINGS = ("engine::functions::list", "engine::functions::info")
# Functions that have others run for whoever calls them: the same rule decides about those.
_DOORS = ("engine::register_trigger", "engine::queue::enqueue", "action::enqueue")


class CheckedLink(Link):
    """A peer whose messages pass the checkpoint. Nothing is sent to it before it is authorized."""

    def __init__(self, connection: WebSocket, carrier: Carrier, terms: Terms, visitor: Visitor) -> None:
        super().__init__(connection, carrier)
        self._terms = terms
        self._visitor = visitor
        self._router = carrier.pump.router
        self._session = Session(terms.rules, UNASKED)
        self._waiting: deque[bytes] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_working = False
        self._checks: dict[type, Callable[[Any], Awaitable[m.Message | None]]] = {
            m.InvokeFunction: self._check_call,
            m.RegisterFunction: self._check_function,
            m.UnregisterFunction: self._check_unregister,
            m.RegisterTrigger: self._check_trigger,
            m.RegisterTriggerType: self._check_trigger_type,
            m.RegisterAction: self._refuse_action,
        }

    def open(self) -> None:
        """Ask who comes; then open as any peer does."""
        self._connection.pause()
        self._start(self._enter())

    async def _enter(self) -> None:
        session = await _admitted(self._connection, self._terms, self._visitor)
        if session is not None:
            self._session = session
            super().open()
            self._connection.resume()

    def on_closed(self) -> None:
        """The connection is gone, and nobody waits for the answers of hooks."""
        for task in self._tasks:
            task.cancel()
        super().on_closed()

    def flush(self) -> None:
        """Write the outbox; the session knows its functions without its prefix."""
        if self._session.auth.function_registration_prefix:
            self.peer.outbox[:] = map(self._without_prefix, self.peer.outbox)
        super().flush()

    def _without_prefix(self, line: bytes) -> bytes:
        try:
            message = decode(line)
        except RemoteProtocolError:
            return line  # of a worker that vouched for it; the session will refuse it
        if not isinstance(message, m.InvokeFunction):
            return line
        message.function_id = self._session.own_id(message.function_id)
        return encode(message)

    # In order, one after the other

    def _route(self, lines: list[bytes]) -> None:
        self._waiting.extend(lines)
        if len(self._waiting) > MAX_WAITING:
            self._connection.pause()
        if not self._is_working:
            self._is_working = True
            self._start(self._work())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        """A check that breaks lets nothing pass and nobody wait: the connection ends with it."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": f"the checkpoint of {self.peer.name} broke", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            self._connection.close(BROKEN)

    async def _work(self) -> None:
        while self._waiting:
            line = await self._checked(self._waiting.popleft())
            super()._route([] if line is None else [line])
        self._is_working = False
        self._connection.resume()

    async def _checked(self, line: bytes) -> bytes | None:
        """Return what may pass of a message; None if nothing may, or if it is answered another way."""
        try:
            message = decode(line)
        except RemoteProtocolError:
            return line  # refused where every line is
        check = self._checks.get(type(message))
        if check is None:
            return line
        passed = await check(message)
        return None if passed is None else encode(passed)

    def _drop(self, what: str) -> None:
        self._carrier.counters["dropped_by_rules"] += 1
        self._router.events.append(Notice(self.peer.name, f"not registered: {what}", "dropped_by_rules"))

    # Calls

    async def _check_call(self, call: m.InvokeFunction) -> m.Message | None:
        namespace = call.namespace or DEFAULT_NAMESPACE
        function = self._router.registry.find(namespace, call.function_id)
        is_builtin = function is not None and any(peer.kind == "engine" for peer in function.providers)
        refusal = self._refusal_of(call, namespace)
        if refusal is not None:
            self._answer(call, _error(ErrorCode.FORBIDDEN, refusal))
        elif is_builtin and call.function_id in _LISTINGS:
            self._start(self._relay(call, self._listing(call)))
        elif self._terms.middleware_function_id and not is_builtin:
            self._start(self._relay(call, self._through_middleware(call, namespace)))
        else:
            return self._with_caller(call, function)
        return None

    def _refusal_of(self, call: m.InvokeFunction, namespace: str) -> str | None:
        wanted = [call.function_id]
        if call.function_id in _DOORS:
            wanted += functions_named_in(_as_object(call.data))
        for function_id in wanted:
            if not self._may_invoke(namespace, function_id):
                return self._session.refusal(function_id)
        if call.function_id != "engine::workers::register":
            return None
        said = _as_object(call.data)
        return self._session.namespace_refusal(str(said.get("namespace") or DEFAULT_NAMESPACE))

    def _may_invoke(self, namespace: str, function_id: str) -> bool:
        function = self._router.registry.find(namespace, function_id)
        return self._session.may_invoke(namespace, function_id, function.metadata if function else {})

    def _with_caller(self, call: m.InvokeFunction, function: Function | None) -> m.InvokeFunction:
        """Tell the callee who calls, in the payload, as the public contract has it on such listeners.

        A function whose schema admits no further fields is not told; what the session says of itself goes either way.
        """
        if m.is_empty(call.action) and bytes(call.data)[:1] == b"{":
            payload = msgspec.json.decode(call.data, type=dict[str, Raw])
            payload.pop(_CALLER, None)
            if function is None or _admits_caller(function.declaration):
                payload[_CALLER] = Raw(encode_value(self.peer.id))
            call.data = Raw(encode_value(payload))
        return call

    async def _through_middleware(self, call: m.InvokeFunction, namespace: str) -> Raw:
        question = {
            "function_id": call.function_id,
            "payload": m.NULL if call.data is m.ABSENT else call.data,
            "action": m.NULL if call.action is m.ABSENT else call.action,
            "context": self._session.auth.context,
            "namespace": namespace,
        }
        middleware = str(self._terms.middleware_function_id)
        return await self._terms.engine_client.call(middleware, question, namespace=namespace, metadata=call.metadata)

    async def _listing(self, call: m.InvokeFunction) -> Raw:
        """Answer a listing with what the session may call."""
        said = _as_object(call.data)
        asked = said.get("function_id")
        if isinstance(asked, str) and not self._may_invoke(said.get("namespace") or DEFAULT_NAMESPACE, asked):
            raise InvocationError(ErrorCode.FORBIDDEN, self._session.refusal(asked))
        answer = decode_value(await self._terms.engine_client.call(call.function_id, call.data))
        if isinstance(answer.get("functions"), list):
            answer["functions"] = [self._shown(row) for row in answer["functions"] if self._is_listed(call, row)]
        return Raw(encode_value(answer))

    def _is_listed(self, call: m.InvokeFunction, row: dict[str, Any]) -> bool:
        return call.function_id.endswith("::info") or self._may_see(row)

    def _shown(self, row: dict[str, Any]) -> dict[str, Any]:
        return row if self._may_see(row) else {"function_id": row["function_id"], "error": "forbidden"}

    def _may_see(self, row: dict[str, Any]) -> bool:
        return self._may_invoke(row.get("namespace") or DEFAULT_NAMESPACE, row["function_id"])

    async def _relay(self, call: m.InvokeFunction, answer: Awaitable[Raw]) -> None:
        try:
            result, error = await answer, m.ABSENT
        except InvocationError as failure:
            result, error = m.ABSENT, _error(failure.code, failure.message)
        self._answer(call, error, result)
        self._pump.turn()

    def _answer(self, call: m.InvokeFunction, error: Raw, result: Raw = m.ABSENT) -> None:
        if call.invocation_id is not None:
            answer = m.InvocationResult(call.invocation_id, call.function_id, result=result, error=error)
            self._router.calls.send(self.peer, encode(answer))

    # Registrations

    async def _asked(self, hook: str | None, question: dict[str, Any]) -> dict[str, Any] | None:
        """Return what a hook answers; None where it refuses: anything but an object is a refusal."""
        if hook is None:
            return {}
        try:
            answer = decode_value(await self._terms.engine_client.call(hook, question))
        except (InvocationError, ValueError):
            return None
        return answer if isinstance(answer, dict) else None

    async def _check_function(self, message: m.RegisterFunction) -> m.Message | None:
        rules, session = self._terms.rules, self._session
        question = {
            "function_id": message.id,
            "description": message.description,
            "metadata": m.or_null(message.metadata),
            "namespace": self.peer.namespace,
            "context": session.auth.context,
        }
        hook = rules.on_function_registration_function_id if rules else None
        may_register = session.may_register_functions and not _names_secret(message.invocation)
        answer = await self._asked(hook, question) if may_register else None
        if answer is None:
            self._drop(message.id)
            return None
        message.id = session.registered_id(_text(answer, "function_id", message.id))
        message.description = _text(answer, "description", message.description)
        if "metadata" in answer:
            message.metadata = Raw(encode_value(answer["metadata"]))
        return message

    async def _check_unregister(self, message: m.UnregisterFunction) -> m.Message | None:
        message.id = self._session.registered_id(message.id)
        return message

    async def _check_trigger(self, message: m.RegisterTrigger) -> m.Message | None:
        rules, session = self._terms.rules, self._session
        namespace = message.namespace or DEFAULT_NAMESPACE
        question = {
            "trigger_id": message.id,
            "trigger_type": message.trigger_type,
            "function_id": message.function_id,
            "config": m.or_null(message.config),
            "metadata": m.or_null(message.metadata),
            "namespace": namespace,
            "context": session.auth.context,
        }
        hook = rules.on_trigger_registration_function_id if rules else None
        answer = await self._asked(hook, question) if session.may_bind_to(message.trigger_type) else None
        if answer is None:
            self._drop(f"trigger {message.id}")
            return None
        message.id = _text(answer, "trigger_id", message.id)
        message.trigger_type = _text(answer, "trigger_type", message.trigger_type)
        message.function_id = session.registered_id(_text(answer, "function_id", message.function_id))
        if "config" in answer:
            message.config = Raw(encode_value(answer["config"]))
        return message if self._may_fire(message, namespace) else None

    def _may_fire(self, message: m.RegisterTrigger, namespace: str) -> bool:
        """A trigger is a call made later: the same rule decides."""
        wanted = [message.function_id, *functions_named_in(_as_object(message.config))]
        refused = next((id for id in wanted if not self._may_invoke(namespace, id)), None)
        if refused is None:
            return True
        words = f"function '{refused}' not allowed in namespace '{namespace}'"
        error = _error(ErrorCode.FORBIDDEN, words)
        answer = m.TriggerRegistrationResult(message.id, message.trigger_type, message.function_id, error)
        self._router.calls.send(self.peer, encode(answer))
        return False

    async def _check_trigger_type(self, message: m.RegisterTriggerType) -> m.Message | None:
        rules, session = self._terms.rules, self._session
        question = {
            "trigger_type_id": message.id,
            "description": message.description,
            "context": session.auth.context,
        }
        hook = rules.on_trigger_type_registration_function_id if rules else None
        answer = await self._asked(hook, question) if session.may_register_trigger_types else None
        if answer is None:
            self._drop(f"trigger type {message.id}")
            return None
        message.id = _text(answer, "trigger_type_id", message.id)
        message.description = _text(answer, "description", message.description)
        return message

    async def _refuse_action(self, message: m.RegisterAction) -> m.Message | None:
        """An action sees the calls of everybody: it is for workers of the project."""
        self._drop(f"action {message.id}")
        return None


class CheckedTelemetryLink(TelemetryLink):
    """Telemetry of a session: the auth function decides about it too."""

    def __init__(self, connection: WebSocket, carrier: Carrier, terms: Terms, visitor: Visitor) -> None:
        super().__init__(carrier)
        self._connection = connection
        self._terms = terms
        self._visitor = visitor
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Ask who comes; read on if it may."""
        self._connection.pause()
        self._task = asyncio.get_running_loop().create_task(self._enter())

    async def _enter(self) -> None:
        if await _admitted(self._connection, self._terms, self._visitor) is not None:
            self._connection.resume()

    def on_closed(self) -> None:
        """Nobody waits for the answer any more."""
        if self._task is not None:
            self._task.cancel()


async def _admitted(connection: WebSocket, terms: Terms, visitor: Visitor) -> Session | None:
    """Return the session of a connection; None if it may not enter, or has left: it has been told then."""
    try:
        session = await terms.session(visitor)
    except InvocationError as error:
        connection.send_lines([encode(m.Error(_error(error.code, error.message)))])
        connection.close()
        return None
    return session if connection.is_open else None


def _text(answer: dict[str, Any], key: str, default: Any) -> Any:
    value = answer.get(key)
    return value if isinstance(value, str) else default


def _names_secret(invocation: Raw) -> bool:
    """Whether a function behind a URL would be sent a secret of this machine: those are not for guests to name."""
    return bool(_as_object(invocation).get("auth"))


def _as_object(data: Raw) -> dict[str, Any]:
    try:
        return decode_object(data)
    except ValueError:  # e.g. a lone surrogate: the callee refuses the call
        return {}


def _error(code: str, message: str) -> Raw:
    return encode_error(m.ErrorBody(code, message))


def _admits_caller(declaration: m.RegisterFunction) -> bool:
    schema = _as_object(declaration.request_format)
    return schema.get("additionalProperties") is not False or _CALLER in schema.get("properties", {})
