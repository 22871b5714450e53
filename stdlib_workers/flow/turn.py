"""A turn under way, in memory: what its body has asked for, and what it was told. One event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import orjson

from iii import InvocationError
from stdlib_workers.flow.journal import Ambiguous, Diverged, Journal, lineage
from stdlib_workers.flow.model import Ask, Entry, EntryState, Recorded
from stdlib_workers.flow.transaction import TurnStart, error_bytes

DONE, FAILED, SUSPENDED, CANCELLED = "done", "failed", "suspended", "cancelled"
# What a body is to do now, for SDKs that know no flows: their `trigger` raises it.
_CONTROL = {
    SUSPENDED: ("flow_suspended", "the run waits; let this error end the function"),
    CANCELLED: ("flow_cancelled", "the run is cancelled; clean up and let this error end the function"),
}
Reply = dict[str, Any]


class Turn:
    """One turn. `told` are the steps that the body was told to wait for: then its end is no end of the run.

    `is_check`: a turn that must make no step (`flow::check`).
    """

    def __init__(self, start: TurnStart, *, continues: bool = False, is_check: bool = False) -> None:
        self.run = start.run
        self.start = start
        self.journal = Journal(start.recorded, continues=continues)
        self.entries = {entry.key: entry for entry in start.journal}
        self.told: set[str] = set()
        self.status: bytes | None = None
        self.diverged: Diverged | None = None
        self.is_check = is_check
        self.is_stale = False  # the function was bound with other code meanwhile
        self.is_broken = False  # the storage has not taken what the body needs
        self.has_recorded = False
        self.has_suspended = False
        self.local: dict[tuple[str, str], str] = {}  # by branch and name, the key of a step that the body makes itself
        self._suspended: set[str] = set()
        self._has_asked = asyncio.Event()

    async def find(self, ask: Ask, key: str | None, patience: float) -> tuple[str, Recorded | None] | None:
        """Return the key of a step with what is recorded of it; None when the body is to end.

        Where tasks of one branch ask at the same time, recorded steps may be asked for a moment later: up to `patience`
        seconds. InvocationError `flow_step_ambiguous`.
        """
        if self.diverged is not None or self._suspended.intersection(lineage(ask.branch)):
            self.suspend(ask.branch)
            return None
        try:
            key = key or self.journal.key_of(ask.branch, ask.name)
        except Ambiguous:
            where = f"two tasks use the step name {ask.name!r} at once; give each a name of its own"
            raise InvocationError("flow_step_ambiguous", where) from None
        loop = asyncio.get_running_loop()
        give_up = loop.time() + patience
        while True:
            try:
                recorded = self.journal.ask(key, ask)
            except Diverged as error:
                if (left := give_up - loop.time()) <= 0:
                    self.diverged = error
                    self.suspend(ask.branch)
                    return None
                self._has_asked.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._has_asked.wait(), left)
            else:
                self._has_asked.set()
                return (key if recorded is None else recorded.key), recorded

    def replayed(self, keys: Iterable[str]) -> None:
        """Take note of recorded steps that the body has read from the journal that it was given."""
        self.journal.replayed(keys)
        self._has_asked.set()

    def suspend(self, branch: str) -> None:
        """Let the branch of a body end here."""
        self.has_suspended = True
        self._suspended.add(branch)

    def wait_for(self, branch: str, key: str) -> Reply:
        """Let the branch of a body end here: the step `key` is not over."""
        self.told.add(key)
        self.suspend(branch)
        return {"state": SUSPENDED}

    def is_over(self, branch: str, name: str) -> None:
        """Take note that the name of a step may be used again."""
        self.journal.is_over(branch, name)

    def keep(self, entry: Entry) -> None:
        """Take in a step that was written in this turn."""
        self.has_recorded = True
        self.journal.add(recorded_from(entry))
        self.entries[entry.key] = entry

    def end(self) -> list[str] | None:
        """Return the recorded steps that the body has skipped, None if it must not end here."""
        try:
            return self.journal.end()
        except Diverged as error:
            self.diverged = error
            return None

    def divergence(self) -> bytes:
        """Return the error of a run that is blocked: both steps, where they stand, and the ways out."""
        assert self.diverged is not None
        recorded, asked = self.diverged.recorded, self.diverged.asked
        is_same = recorded.code == self.run.code
        wants = "ends" if asked is None else f"asks for {_step(asked.kind, asked.name, asked.function_id)}{_at(asked)}"
        text = (
            f"the journal of the run {self.run.id} has {_step(recorded.kind, recorded.key, recorded.function_id)}"
            f"{_at(recorded)} (code {recorded.code or '?'}) where its function {self.run.function_id} "
            f"{wants} (code {self.run.code or '?'}); "
        )
        if is_same:
            text += "the same code took another way: use flow.now, flow.random, flow.uuid or a step for what changes; "
        text += (
            "save code that matches (`was=` names a renamed step, flow.patched guards a new one), "
            'set on_change="continue", or `iii flow fork` or `cancel` it'
        )
        code = "flow_nondeterministic" if is_same else "flow_changed"
        names: dict[str, Any] = {"recorded": _fields(recorded), "recorded_code": recorded.code}
        return error_bytes(code, text, **names, asked=asked and _fields(asked), asked_code=self.run.code)


def reply_from(entry: Entry) -> Reply:
    """Return what a body hears of a step that has ended."""
    if entry.state is EntryState.DONE:
        return {"state": DONE, "key": entry.key, "value": orjson.loads(entry.value or b"null"), "at": entry.ended}
    if entry.state is EntryState.FAILED:
        return {"state": FAILED, "key": entry.key, "error": orjson.loads(entry.error or b"{}"), "at": entry.ended}
    return {"state": CANCELLED, "key": entry.key}


def result_of(reply: Reply) -> Any:
    """Return what a body of an SDK that knows no flows gets for a reply. Raises what it raises."""
    if reply["state"] == DONE:
        return reply["value"]
    if reply["state"] == FAILED:
        error = reply["error"]
        details = {**(error.get("details") or {}), "step": reply["key"]}
        raise InvocationError(error.get("code") or "UNKNOWN", error.get("message") or "", details=details)
    code, message = _CONTROL[reply["state"]]
    raise InvocationError(code, message)


def recorded_from(entry: Entry) -> Recorded:
    """Return what the check of changed code knows of a step."""
    return Recorded(entry.key, entry.branch, entry.kind, entry.function_id, entry.source, entry.code)


def _step(kind: str, name: str, function_id: str | None) -> str:
    return f"the {kind} {name!r}" + (f" of {function_id}" if function_id and function_id != name else "")


def _at(step: Recorded | Ask) -> str:
    return f" at {step.source}" if step.source else ""


def _fields(step: Recorded | Ask) -> dict[str, Any]:
    name = step.key if isinstance(step, Recorded) else step.name
    return {"step": name, "kind": step.kind, "function_id": step.function_id, "at": step.source}
