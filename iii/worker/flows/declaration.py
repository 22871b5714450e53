"""Registers functions as flows, and runs their turns: for the flow worker a turn, for anyone else a new run."""

from __future__ import annotations

import hashlib
import os
import sys

from iii.errors import ErrorCode, InvocationError
from iii.worker.context.invocation import current_invocation
from iii.worker.flows.endings import FlowCancelled, FlowParked
from iii.worker.flows.handle import AsyncFlow, Flow
from iii.worker.flows.progress import NO_TIMEOUT, Progress, flow_request
from iii.worker.functions.handler import Handler, describe, takes_whole_payload, typed_handler_from
from iii.worker.functions.signature import UnresolvedAnnotation, is_coroutine_function, read_signature, source_of
from iii.worker.handlers.bindings import undecorated
from iii.worker.handlers.queues import milliseconds_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal, Protocol, TypedDict

    from iii.worker.api.requests import Caller, TriggerRequestInput
    from iii.worker.api.triggers import FunctionRef, Trigger, TriggerInput

    class FlowOptions(TypedDict, total=False):
        """The keyword arguments of `worker.flow`.

        `id_field`: a path in the input whose value is the run's id. `timeout`: seconds, or a text like `"30d"`, after
        which a run is cancelled. `on_change="continue"`: changed code skips recorded steps that it does not ask for.
        """

        id_field: str
        timeout: float | str
        on_change: Literal["stop", "continue"]
        code: str
        description: str
        metadata: dict[str, Any]

    class FlowWorker(Caller, Protocol):
        """What of a worker a flow needs."""

        _namespace: str | None

        def _check_function(self, function_id: str, handler: Any, source: dict[str, Any] | None = None) -> None: ...
        def _offer(self, handler: Handler, details: dict[str, Any]) -> FunctionRef: ...
        def register_trigger(self, trigger: TriggerInput) -> Trigger: ...


# The key of the metadata in which the flow worker names run, turn and step.
SIDECAR = "iii.flow"
_JOB = "iii.job"


def declare(worker: FlowWorker, function: Callable[..., Any], function_id: str, options: FlowOptions) -> None:
    """Register a function as a flow. TypeError for one that cannot be, with file and line."""
    function = undecorated(function)
    source = source_of(function, os.environ.get("III_PROJECT", ""))
    where = f"{source['file']}:{source['line']}: " if source else ""
    try:
        signature = read_signature(function, strict=True)
    except UnresolvedAnnotation as error:
        raise TypeError(f"{where}{error}") from None
    if not signature.positional:
        text = f"the first parameter of the flow {function_id} is its handle, as in def run(flow, order_id: str)"
        raise TypeError(f"{where}{text}")
    body = _Body(function)
    worker._check_function(function_id, function, source)
    by_name = not takes_whole_payload(read_signature(body))
    details = describe(body, typed=True, by_name=by_name)
    details |= {key: options[key] for key in ("description", "metadata") if key in options}
    if details["response_format"] is not None:
        # What a run returns. A turn that ends before the run does returns something else.
        details["response_format"] = {**details["response_format"], "x-unchecked": True}
    inner = typed_handler_from(function_id, body, by_name=by_name)
    runner = _AsyncRunner if is_coroutine_function(function) else _Runner
    call = runner(worker, function_id, inner).call
    handler = Handler(function_id, call, is_async=inner.is_async, takes_metadata=True, yields=False)
    config: dict[str, Any] = {"code": options.get("code") or code_hash(function)}
    config |= {key: options[key] for key in ("id_field", "on_change") if key in options}
    if "timeout" in options:
        config["timeout_ms"] = milliseconds_from(options["timeout"])
    worker._offer(handler, {**details, "source": source})
    worker.register_trigger({"type": "flow", "function_id": function_id, "config": config})


def code_hash(function: Callable[..., Any]) -> str:
    """Return a hash of the project's files that this process has loaded, or of the function's file alone."""
    imports = getattr(sys.modules.get("iii_launcher"), "imports", None)
    digests = dict(getattr(imports, "digests", None) or {})
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    for file in {getattr(sys.modules.get("__main__"), "__file__", None), code and code.co_filename}:
        if file and file not in digests and os.path.isfile(file):
            with open(file, "rb") as opened:
                digests[file] = hashlib.sha256(opened.read()).hexdigest()
    project = os.environ.get("III_PROJECT", "")
    lines = sorted(f"{path.removeprefix(project)} {digest}" for path, digest in digests.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


class _Body:
    """A flow's function without its first parameter, the handle. Called, it returns what takes that."""

    def __init__(self, function: Callable[..., Any]) -> None:
        import inspect  # few workers have flows

        self.func = function
        whole = inspect.signature(function)
        self.__signature__ = whole.replace(parameters=list(whole.parameters.values())[1:])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return lambda flow: self.func(flow, *args, **kwargs)


class _Runner:
    """What the runner of a worker calls: a turn for the flow worker, a new run for anyone else."""

    def __init__(self, worker: FlowWorker, function_id: str, inner: Handler) -> None:
        self.worker = worker
        self.function_id = function_id
        self._inner = inner

    def call(self, payload: Any, metadata: Any = None) -> Any:
        turn = turn_of(metadata)
        if turn is None:
            return self.worker.trigger(self.start_request(payload, metadata))
        body = self.body(payload, metadata)
        flow = Flow(self.worker, Progress(turn))
        try:
            try:
                result = body(flow)
            except FlowCancelled:
                result = {SIDECAR: "cancelled"}
            except Exception:
                flow.tell()
                raise
            flow.tell()
        except FlowParked:
            return {SIDECAR: "suspended"}
        except InvocationError as error:
            raise marked(error) from None
        return result

    def start_request(self, payload: Any, metadata: Any) -> TriggerRequestInput:
        """Return the call that starts a run and waits for its result. For a job of a queue it ends with the start."""
        job = metadata.get(_JOB) if isinstance(metadata, dict) else None
        fields = {"function_id": self.function_id, "payload": payload, "wait": job is None}
        if self.worker._namespace is not None:
            fields["namespace"] = self.worker._namespace
        if isinstance(job, dict):
            fields["job_id"] = job.get("id")
        invocation = current_invocation()
        remaining = None if invocation is None else invocation.remaining_ms
        timeout = NO_TIMEOUT if remaining is None else max(1.0, remaining)
        return flow_request("start", fields, timeout)

    def body(self, payload: Any, metadata: Any) -> Any:
        """Return the function with its arguments. InvocationError `invalid_payload` for those that do not fit."""
        return self._inner.call(payload, metadata=metadata) if self._inner.takes_metadata else self._inner.call(payload)


class _AsyncRunner(_Runner):
    """As `_Runner`, for coroutine functions."""

    async def call(self, payload: Any, metadata: Any = None) -> Any:
        turn = turn_of(metadata)
        if turn is None:
            return await self.worker.trigger_async(self.start_request(payload, metadata))
        body = self.body(payload, metadata)
        flow = AsyncFlow(self.worker, Progress(turn))
        try:
            try:
                result = await body(flow)
            except FlowCancelled:
                result = {SIDECAR: "cancelled"}
            except Exception:
                await flow.tell()
                raise
            await flow.tell()
        except FlowParked:
            return {SIDECAR: "suspended"}
        except InvocationError as error:
            raise marked(error) from None
        return result


def turn_of(metadata: Any) -> dict[str, Any] | None:
    """Return what the flow worker says of a turn, None for any other call."""
    turn = metadata.get(SIDECAR) if isinstance(metadata, dict) else None
    return turn if isinstance(turn, dict) and "turn" in turn else None


def marked(error: InvocationError) -> InvocationError:
    """Return an error that the body has raised so that it cannot be taken for the refusal of its call."""
    if error.code == ErrorCode.INVALID_PAYLOAD and not error.stacktrace:
        error.stacktrace = "raised by the flow"
    return error
