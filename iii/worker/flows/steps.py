"""The steps of one branch of a body. Each operation is written once, as a generator of the calls that it makes."""

from __future__ import annotations

import os
import sys
from random import Random

from iii.errors import InvocationError
from iii.worker.calls.errors import body_from_exception
from iii.worker.flows.endings import FlowCancelled, FlowParked
from iii.worker.handlers.queues import milliseconds_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from datetime import datetime
    from typing import Any
    from uuid import UUID

    from iii.worker.api.requests import Caller
    from iii.worker.flows.progress import Progress

    # An operation yields requests, or functions to be called, gets their results, and returns its own.
    Operation = Generator[Any, Any, Any]

# Stands for what was not given: None is a value.
UNSET: Any = object()
_CALL_OPTIONS = frozenset(("name", "undo", "max_retries", "backoff_ms", "timeout_ms", "queue", "namespace", "was"))
# Frames of files below it are not the user's.
_SDK_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Steps:
    """One branch of a body: the names it has used, its clock and its random numbers."""

    def __init__(self, worker: Caller, progress: Progress, branch: str = "", at: int | None = None) -> None:
        self._worker = worker
        self.progress = progress
        self._branch = branch
        self._uses: dict[str, int] = {}
        self._owners: dict[str, int] = {}
        self._at = progress.created if at is None else at
        self._random: Random | None = None

    @property
    def run(self) -> str:
        """The id of the run."""
        return self.progress.run

    @property
    def random(self) -> Random:
        """Random numbers that are the same in every turn."""
        if self._random is None:
            self._random = Random(f"{self.run}/{self._branch}")
        return self._random

    def uuid(self) -> UUID:
        """Return an id that is the same in every turn, and another one at each call."""
        from uuid import UUID

        return UUID(int=self.random.getrandbits(128), version=4)

    def now(self) -> datetime:
        """Return when the last step ended, in UTC: the same in every turn."""
        from datetime import UTC, datetime

        return datetime.fromtimestamp(self._at / 1000, UTC)

    def _task(self) -> int:
        raise NotImplementedError

    def _key(self, name: str) -> str:
        """Return the key of the next step of this name. InvocationError `flow_step_ambiguous`."""
        owner = self._owners.setdefault(name, self._task())
        if owner != self._task():
            text = f"two tasks of one branch use the step name {name!r}; give each a name, or use flow.gather"
            raise InvocationError("flow_step_ambiguous", text)
        use = self._uses[name] = self._uses.get(name, 0) + 1
        name = name if use == 1 else f"{name}#{use}"
        return f"{self._branch}/{name}" if self._branch else name

    def _outcome(self, reply: dict[str, Any]) -> Any:
        """Return the result of a step, or raise its error, FlowParked or FlowCancelled."""
        state = reply["state"]
        if state in ("done", "failed") and reply.get("at") is not None:
            self._at = reply["at"]
        if state == "done":
            return reply["value"]
        if state == "failed":
            error = reply["error"]
            details = {**(error.get("details") or {}), "step": reply["key"]}
            raise InvocationError(error.get("code") or "UNKNOWN", error.get("message") or "", details=details)
        if state == "cancelled":
            raise FlowCancelled(f"the run {self.run} was cancelled")
        raise FlowParked(f"the run {self.run} waits")

    def _ask(
        self, operation: str, name: str, kinds: tuple[str, ...], function_id: str | None, fields: dict[str, Any]
    ) -> Operation:
        """Make a step, unless it is recorded: then return what is."""
        key = self._key(name)
        line = None if fields.get("was") else (yield from self._read(key, kinds, function_id))
        if line is None:
            place = {"key": key, "name": name, "branch": self._branch, "source": caller_source()}
            line = yield from self._find(operation, {**place, **fields})
        return self._outcome(line)

    def _read(self, key: str, kinds: tuple[str, ...], function_id: str | None) -> Operation:
        """Return a recorded step, None for one that the flow worker must be asked for.

        Another task of the branch may have asked for a new step, which waits until all recorded ones were read.
        """
        line = self.progress.read(key, kinds, function_id)
        if line is not None and self.progress.is_waited_for(self._branch):
            yield self.progress.request("seen", {})
        return line

    def _find(self, operation: str, fields: dict[str, Any]) -> Operation:
        """Ask the flow worker for a step."""
        self.progress.asking.append(self._branch)
        try:
            return (yield self.progress.request(operation, fields))
        finally:
            self.progress.asking.remove(self._branch)

    def _call(self, function_id: str, payload: Any, options: Any) -> Operation:
        unknown = sorted(set(options) - _CALL_OPTIONS)
        if unknown:
            raise TypeError(f"flow.call has no option {unknown[0]!r}; there are {', '.join(sorted(_CALL_OPTIONS))}")
        fields = given(function_id=function_id, payload=payload, **options)
        return self._ask("call", fields.pop("name", function_id), ("call", "child"), function_id, fields)

    def _start(self, function_id: str, payload: Any, id: str | None, name: str | None) -> Operation:
        fields = given(function_id=function_id, payload=payload, id=id)
        return self._ask("start", name or function_id, ("start",), function_id, fields)

    def _step(
        self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], undo: str | None, was: str | None
    ) -> Operation:
        key = self._key(name)
        line = None if was else (yield from self._read(key, ("step",), None))
        if line is None:
            place = {"key": key, "name": name, "branch": self._branch, "source": caller_source()}
            begin = {
                **place,
                **({"undo": undo, "payload": list(arguments)} if undo else {}),
                **({"was": was} if was else {}),
            }
            # New for certain, and not to be undone: there is nothing to ask for.
            is_new = undo is None and was is None and self.progress.is_past()
            line = {"state": "new"} if is_new else (yield from self._find("begin", begin))
            if line["state"] == "new":
                outcome: dict[str, Any]
                try:
                    outcome = {"result": (yield lambda: function(*arguments))}
                except Exception as error:  # noqa: BLE001 - the boundary to the user's step
                    outcome = {"error": body_from_exception(error)}
                line = yield self.progress.request("end", {**place, **outcome})
                if line.get("is_stale"):
                    self.progress.is_whole = False  # the next step is for new code to make
        return self._outcome(line)

    def _sleep_for(self, duration: float | str, name: str | None) -> Operation:
        return self._ask("sleep", name or "sleep", ("sleep",), None, {"ms": milliseconds_from(duration)})

    def _sleep_until(self, moment: datetime, name: str | None) -> Operation:
        return self._ask("sleep", name or "sleep", ("sleep",), None, {"until_ms": round(moment.timestamp() * 1000)})

    def _wait(self, event: str | list[str], timeout: float | str | None, default: Any, name: str | None) -> Operation:
        fields: dict[str, Any] = {"event": event}
        if timeout is not None:
            fields["timeout_ms"] = milliseconds_from(timeout)
        events = [event] if isinstance(event, str) else list(event)
        if default is not UNSET:
            fields["default"] = default
        return self._ask("wait", name or "|".join(events), ("wait",), None, fields)

    def _patched(self, name: str) -> Operation:
        key = f"{self._branch}/patch:{name}" if self._branch else f"patch:{name}"
        line = yield from self._read(key, ("patch",), None)
        if line is None:
            place = {"name": name, "branch": self._branch, "source": caller_source()}
            line = yield from self._find("patched", place)
        return line["value"] if line["state"] == "done" else self._outcome(line)

    def _say(self, operation: str, fields: dict[str, Any]) -> Operation:
        return self._outcome((yield self.progress.request(operation, fields)))

    def _branches(self, name: str, count: int) -> list[str]:
        key = self._key(name)
        return [f"{key}/{index}" for index in range(count)]


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def caller_source() -> str | None:
    """Return the `FILE:LINE` of the nearest code that is not the SDK's."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_SDK_FOLDER):
        frame = frame.f_back
    if frame is None:
        return None
    project = os.environ.get("III_PROJECT")
    file = frame.f_code.co_filename
    return f"{file.removeprefix(f'{project}/') if project else file}:{frame.f_lineno}"


def is_infrastructure(error: InvocationError) -> bool:
    """Tell whether an operation has failed for no reason of the body's own: then its turn is made again."""
    return not error.code.startswith("flow_") and error.code not in (
        "invalid_payload",
        "deserialization_error",
        "run_conflict",
    )
