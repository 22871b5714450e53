"""One instance of a worker: its state, and the generations that the state's changes start and end.

Every event of the instance (a command, `ready`, an exit, the end of a backoff) goes to the pure functions of
`replacement`; they return the next state and a plan, and the plan is carried out here. The supervisor owns the
instances and hears of every change.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from iii.engine.config.spec import WorkerSpec
from iii.engine.supervision import replacement
from iii.engine.supervision.critical_tasks import start_critical
from iii.engine.supervision.generation import Generation
from iii.engine.supervision.hooks import SupervisionContext
from iii.engine.supervision.lifecycle import Action, Actual, Availability, Desired, Event
from iii.engine.supervision.loaded_files import AT_REST, LONG_REST, MAX_STALE, changed_since_loaded
from iii.engine.supervision.replacement import InstanceState, Plan
from iii.engine.supervision.reports import Became, Exited, Failed, Finished, Notice, Reloaded, ReloadFailed
from iii.engine.supervision.restart_policy import MAX_UNBLAMED, History, Verdict, judge
from iii.engine.supervision.run import Cause, ExitReason, Run

# Most seconds that a stop waits for calls; a reload may wait longer, because no user waits for it at the terminal.
STOP_DRAIN_TIMEOUT = 10.0


class Instance:
    """One instance of a worker. `spec` may be replaced; the next generation starts with it.

    `can_start(spec)` says whether what the worker depends on has come up; `on_changed(instance)` is called after every
    change of state, `on_closed(run)` when a process that had been opened is gone.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        index: int,
        context: SupervisionContext,
        *,
        can_start: Callable[[WorkerSpec], bool],
        on_changed: Callable[[Instance], None],
        on_closed: Callable[[Run], None],
    ) -> None:
        self.spec = spec
        self.index = index
        self.state = InstanceState(exclusive=spec.reload == "exclusive")
        self.restarts = 0
        self.last_exit: ExitReason | None = None
        self.retry_at = 0.0  # seconds since the epoch, while it backs off
        self.started_at = 0.0  # seconds since the epoch: when the serving generation became ready
        self._context = context
        self._can_start = can_start
        self._on_changed = on_changed
        self._on_closed = on_closed
        self._history = History()
        self._verdict = Verdict(Event.CRASHED)
        self._generations: dict[int, Generation] = {}
        self._backoff: asyncio.TimerHandle | None = None
        self._files: tuple[str, ...] = ()  # whose change causes the next reload
        self._comparing: set[int] = set()  # generations whose files are compared
        self._stale = 0  # generations in a row whose files had changed since they were loaded
        self._has_served = False
        self._is_restart = False  # what starts is what has died, neither mended nor asked for
        self._do: dict[Action, Callable[[int], None]] = {
            Action.SPAWN: self._spawn,
            Action.PROMOTE: self._promote,
            Action.END: self._end,
            Action.WAIT: self._back_off,
            Action.REFUSE: self._report_failed,
            Action.SETTLE: self._report_finished,
            Action.KEEP: self._report_kept,
        }

    @property
    def availability(self) -> Availability:
        return self.state.lifecycle.availability

    @property
    def serving(self) -> Generation | None:
        """The generation whose lifecycle is the instance's, None if there is no process."""
        return self._generations.get(self.state.serving)

    @property
    def generations(self) -> tuple[Generation, ...]:
        """Every generation that has, or is about to have, a process."""
        return tuple(self._generations.values())

    def was_starting_at(self, moment: float) -> bool:
        """True if a process of this instance was starting, and not ready yet, at `moment` (seconds since the epoch)."""
        now, clock = time.time(), time.monotonic()
        for generation in self.generations:
            began = now - (clock - generation.started_at) if generation.started_at else now
            until = now - (clock - generation.ready_at) if generation.ready_at else now
            if began <= moment <= until:
                return True
        return False

    def row(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `iii ps` and the console show: name, instance, generation, pid, state, reloading, restarts,
        last_exit (words), last_error {file, line, text, source}, started_at and retry_at (seconds since the epoch),
        runtime, python, metrics.
        """
        spec, actual, last_exit = self.spec, self.state.lifecycle.actual, self.last_exit
        process = self.serving.process if self.serving else None
        is_source_missing = actual is Actual.READY and spec.script is not None and not Path(spec.script).exists()
        return {
            "name": spec.name,
            "namespace": spec.namespace,
            "instance": self.index,
            "generation": self.state.serving or self.state.generation,
            "pid": process.pid if process else None,
            "state": "source_missing" if is_source_missing else actual.value,
            "reloading": bool(self.state.candidate),
            "restarts": self.restarts,
            "last_exit": last_exit.words if last_exit else None,
            "last_error": last_exit.source_error if last_exit else None,
            "started_at": self.started_at or None,
            "retry_at": self.retry_at if actual is Actual.BACKOFF else None,
            "runtime": "other" if spec.command else "python",
            "python": str(spec.python) if spec.python else None,
            "metrics": dict(metrics),
        }

    # Events.

    def command(self, event: Event, files: tuple[str, ...] = ()) -> None:
        """Apply START, RESTART, STOP, or CHANGED with the files that have changed."""
        if files:
            self._files = files
        self._is_restart = event is Event.ELAPSED
        if event in (Event.RESTART, Event.START, Event.CHANGED) and self.state.lifecycle.actual is Actual.FAILED:
            self._history = History()
        self._advance(replacement.command(self._state_with_spec(), event))

    def on_ready(self, number: int, digests: Mapping[str, str]) -> None:
        """The process of this generation has registered everything; `digests` are of the files that it has loaded."""
        generation = self._generations.get(number)
        if generation is None or generation.is_ending:
            return
        generation.stop_waiting_for_ready()
        if not digests:
            self._advance(replacement.ready(self.state, number))
        elif number not in self._comparing:
            self._comparing.add(number)
            start_critical(self._compare(generation, digests), f"the files of {generation.run}")

    async def _compare(self, generation: Generation, digests: Mapping[str, str]) -> None:
        """Let a generation serve if its files still hold what it has loaded, when no save of them is under way.

        After one that has loaded something else, the next ones wait longer for the end of the saves. One whose own
        start changes what it has loaded serves in the end, with a word.
        """
        try:
            changed = await changed_since_loaded(digests, LONG_REST if self._stale else AT_REST)
            is_own_doing = bool(changed) and self._stale == MAX_STALE
            self._stale += bool(changed)
        except TimeoutError:
            changed, is_own_doing = tuple(digests), False
        number = generation.run.generation
        self._comparing.discard(number)
        if self._generations.get(number) is not generation or generation.is_ending:
            return
        files = tuple(os.path.relpath(file, self._context.root) for file in changed)
        if changed and not is_own_doing:
            self._files = self._files or files
            self._advance(replacement.changed_while_starting(self._state_with_spec(), number))
            return
        if is_own_doing:
            text = f"its start changes {', '.join(files)} after having loaded it: it serves what it has loaded"
            self._context.report(Notice(text, self.spec.name))
        self._stale = 0
        self._advance(replacement.ready(self.state, number))

    def _on_ended(self, generation: Generation, reason: ExitReason) -> None:
        number = generation.run.generation
        del self._generations[number]
        event = self._judge(generation, reason)
        self.state, plan = replacement.exited(self._state_with_spec(), number, event)
        # In this order: new calls meet the new state, the calls that were running fail, the plan follows.
        self._on_changed(self)
        if generation.was_opened:
            self._context.hooks.closed(generation.run, reason)
            self._on_closed(generation.run)
        self._carry_out(plan)

    def _judge(self, generation: Generation, reason: ExitReason) -> Event:
        """Return what the exit means; count it against the worker if the serving process ended by itself."""
        if generation.is_ending:
            return Event.EXITED
        self.last_exit = reason
        if generation.run.generation != self.state.serving:
            return Event.CRASHED
        now, jitter = time.monotonic(), random.uniform(-1, 1)
        ready_for = now - generation.ready_at if generation.ready_at is not None else -1.0
        judged = judge(
            self._history,
            self.spec.restart,
            reason,
            now,
            ready_for=ready_for,
            has_served=self._has_served,
            jitter=jitter,
        )
        self._history, self._verdict = judged
        return self._verdict.event

    def _advance(self, outcome: tuple[InstanceState, Plan]) -> None:
        self.state, plan = outcome
        self._on_changed(self)
        self._carry_out(plan)

    def _carry_out(self, plan: Plan) -> None:
        for action, generation in plan:
            self._do[action](generation)
        if plan:
            self._on_changed(self)

    def _state_with_spec(self) -> InstanceState:
        return replace(self.state, exclusive=self.spec.reload == "exclusive")

    # Actions.

    def _spawn(self, number: int) -> None:
        self._cancel_backoff()
        spec = self.spec
        generation = Generation(Run(spec.name, self.index, number), spec, self._context, self._on_ended)
        self._generations[number] = generation
        generation.start(lambda: self._can_start(spec))

    def _promote(self, number: int) -> None:
        generation = self._generations[number]
        seconds = generation.mark_ready()
        hooks, report = self._context.hooks, self._context.report
        finishing = sum(hooks.owed(other.run) for other in self.generations if other is not generation)
        hooks.promote(generation.run)
        self.started_at = time.time()
        files, self._files = self._files, ()
        if not self._is_restart:
            self.last_exit = None
        if self._has_served:
            report(Reloaded(generation.run, seconds, files, finishing))
        else:
            report(Became(generation.run, seconds))
        self._has_served = True

    def _end(self, number: int) -> None:
        is_stop = self.state.lifecycle.desired is Desired.DOWN
        cause: Cause = "stop" if is_stop else "reload"
        drain_timeout = min(self.spec.drain_timeout, STOP_DRAIN_TIMEOUT) if is_stop else self.spec.drain_timeout
        # None: a generation that was still queued for its start may have ended already.
        if generation := self._generations.get(number):
            generation.end(cause, drain_timeout)

    def _back_off(self, _number: int) -> None:
        verdict = self._verdict
        self.restarts += 1
        self.retry_at = time.time() + verdict.delay
        self._backoff = asyncio.get_running_loop().call_later(verdict.delay, self.command, Event.ELAPSED)
        reason = self._exit_reason()
        limit = 0 if reason.blamed else MAX_UNBLAMED
        self._context.report(Exited(self._newest_run(), reason, verdict.delay, verdict.count, limit))

    def _report_failed(self, _number: int) -> None:
        self._context.report(Failed(self._newest_run(), self._exit_reason(), self._verdict.count))

    def _report_finished(self, _number: int) -> None:
        self._cancel_backoff()
        if self.state.lifecycle.desired is Desired.UP:
            self._context.report(Finished(self._newest_run(), self._exit_reason()))

    def _report_kept(self, number: int) -> None:
        reason = self._exit_reason()
        if reason.cause not in ("stop", "reload"):
            self._context.report(ReloadFailed(Run(self.spec.name, self.index, number), reason, self.started_at))

    def _cancel_backoff(self) -> None:
        if self._backoff is not None:
            self._backoff.cancel()
            self._backoff = None

    def _newest_run(self) -> Run:
        return Run(self.spec.name, self.index, self.state.generation)

    def _exit_reason(self) -> ExitReason:
        return self.last_exit or ExitReason("never started")


def unavailable_reason(instances: Sequence[Instance]) -> dict[str, Any]:
    """Return why calls to a worker are refused: its state, and what is known of its last exit."""
    if not instances:
        return {"state": "removed", "words": "no longer in iii.toml", "stderr": []}
    failed = (instance for instance in instances if instance.state.lifecycle.actual is Actual.FAILED)
    worst = next(failed, instances[0])
    reason = worst.last_exit or ExitReason("stopped")
    return {
        "state": worst.state.lifecycle.actual.value,
        "words": reason.words,
        "stderr": list(reason.stderr),
        **(reason.source_error or {}),
    }
