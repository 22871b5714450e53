"""One instance of a worker: the pure slot, and the generations that it moves.

Every event about the instance (a command, `ready`, an exit, the backoff timer) goes through `_advance`: the
slot decides, the plan is carried out. `supervisor.py` owns the seats and hears of every change.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from iii.engine.config.spec import WorkerSpec
from iii.engine.supervision import replacement
from iii.engine.supervision.generation import Generation
from iii.engine.supervision.hooks import Ground
from iii.engine.supervision.lifecycle import Action, Actual, Availability, Desired, Event
from iii.engine.supervision.replacement import InstanceState, Plan
from iii.engine.supervision.reports import Became, Exited, Failed, Finished, Reloaded, ReloadFailed
from iii.engine.supervision.restart_policy import MAX_UNBLAMED, Exit, History, Verdict, judge
from iii.engine.supervision.run import Cause, ExitReason, Run

# A stop, unlike a reload, has somebody waiting for it at the terminal.
STOP_DRAIN = 10.0


class Surroundings(Struct, frozen=True):
    """What a seat asks of the supervisor: may it start now, and whom to tell that it has changed."""

    can_start: Callable[[WorkerSpec], bool]
    changed: Callable[[Instance], None]
    exited: Callable[[Run], None]


class Instance:
    """One instance of a worker. `spec` may be replaced; the next generation starts with it."""

    def __init__(self, spec: WorkerSpec, instance: int, ground: Ground, around: Surroundings) -> None:
        self.spec = spec
        self.instance = instance
        self.slot = InstanceState(exclusive=spec.reload == "exclusive")
        self.restarts = 0
        self.last_exit: ExitReason | None = None
        self.retry_at = 0.0  # seconds since the epoch, while it backs off
        self.started_at = 0.0  # seconds since the epoch: when the serving generation was ready
        self._ground = ground
        self._around = around
        self._history = History()
        self._verdict = Verdict(Event.CRASHED)
        self._generations: dict[int, Generation] = {}
        self._backoff: asyncio.TimerHandle | None = None
        self._files: tuple[str, ...] = ()
        self._has_served = False
        self._do: dict[Action, Callable[[int], None]] = {
            Action.SPAWN: self._spawn,
            Action.PROMOTE: self._promote,
            Action.END: self._end,
            Action.WAIT: self._wait,
            Action.REFUSE: self._tell_failed,
            Action.SETTLE: self._tell_finished,
            Action.KEEP: self._tell_kept,
        }

    def __repr__(self) -> str:
        return f"<Seat {self.spec.name}[{self.instance}] {self.slot.state.actual.value} #{self.slot.serving}>"

    @property
    def availability(self) -> Availability:
        return self.slot.state.availability

    @property
    def serving(self) -> Generation | None:
        """The generation whose state is the seat's, None if there is no process."""
        return self._generations.get(self.slot.serving)

    @property
    def generations(self) -> tuple[Generation, ...]:
        """Every generation that has, or is about to have, a process."""
        return tuple(self._generations.values())

    def was_starting_at(self, moment: float) -> bool:
        """True if a process of this seat was between its start and `ready` at `moment` (seconds since the
        epoch).
        """
        now, clock = time.time(), time.monotonic()
        for generation in self.generations:
            began = now - (clock - generation.started_at) if generation.started_at else now
            until = now - (clock - generation.ready_at) if generation.ready_at else now
            if began <= moment <= until:
                return True
        return False

    # Events.

    def command(self, event: Event, files: tuple[str, ...] = ()) -> None:
        """START, RESTART, STOP, or CHANGED with the files that did."""
        if files:
            self._files = files
        if event in (Event.RESTART, Event.START, Event.CHANGED) and self.slot.state.actual is Actual.FAILED:
            self._history = History()
        self._advance(replacement.command(self._with_rules(), event))

    def on_ready(self, generation: int) -> None:
        """The process of this generation has registered everything."""
        self._advance(replacement.ready(self.slot, generation))

    def _on_ended(self, generation: Generation, reason: ExitReason) -> None:
        number = generation.run.generation
        del self._generations[number]
        event = self._judge(generation, reason)
        self.slot, plan = replacement.exited(self._with_rules(), number, event)
        # First what calls meet from now on, then the calls that were running, then what follows.
        self._around.changed(self)
        if generation.was_opened:
            self._ground.hooks.closed(generation.run, reason)
            self._around.exited(generation.run)
        self._carry_out(plan)

    def _judge(self, generation: Generation, reason: ExitReason) -> Event:
        if generation.is_ending:
            return Event.EXITED
        self.last_exit = reason
        if generation.run.generation != self.slot.serving:
            return Event.CRASHED
        ready_for = time.monotonic() - generation.ready_at if generation.ready_at is not None else -1.0
        end = Exit(reason, time.monotonic(), ready_for, random.uniform(-1, 1))
        self._history, self._verdict = judge(self._history, end, self.spec.restart)
        return self._verdict.event

    def _advance(self, outcome: tuple[InstanceState, Plan]) -> None:
        self.slot, plan = outcome
        self._around.changed(self)
        self._carry_out(plan)

    def _carry_out(self, plan: Plan) -> None:
        for action, generation in plan:
            self._do[action](generation)
        if plan:
            self._around.changed(self)

    def _with_rules(self) -> InstanceState:
        return replace(self.slot, exclusive=self.spec.reload == "exclusive")

    # Actions.

    def _spawn(self, number: int) -> None:
        if self._backoff is not None:
            self._backoff.cancel()
            self._backoff = None
        run = Run(self.spec.name, self.instance, number)
        generation = Generation(run, self.spec, self._ground, self._on_ended)
        self._generations[number] = generation
        spec = self.spec
        generation.start(lambda: self._around.can_start(spec))

    def _promote(self, number: int) -> None:
        generation = self._generations[number]
        seconds = generation.mark_ready()
        finishing = sum(self._ground.hooks.owed(g.run) for g in self.generations if g is not generation)
        self._ground.hooks.promote(generation.run)
        self.started_at = time.time()
        files, self._files = self._files, ()
        if self._has_served:
            self._ground.report(Reloaded(generation.run, seconds, files, finishing))
        else:
            self._ground.report(Became(generation.run, seconds))
        self._has_served = True

    def _end(self, number: int) -> None:
        is_stop = self.slot.state.desired is Desired.DOWN
        cause: Cause = "stop" if is_stop else "reload"
        drain = min(self.spec.drain_timeout, STOP_DRAIN) if is_stop else self.spec.drain_timeout
        # A generation that was still in the queue may have told us of its end already.
        if generation := self._generations.get(number):
            generation.end(cause, drain)

    def _wait(self, _number: int) -> None:
        verdict = self._verdict
        self.restarts += 1
        self.retry_at = time.time() + verdict.delay
        loop = asyncio.get_running_loop()
        self._backoff = loop.call_later(verdict.delay, self.command, Event.ELAPSED)
        reason = self._last_exit()
        limit = 0 if reason.blamed else MAX_UNBLAMED
        run = Run(self.spec.name, self.instance, self.slot.generation)
        self._ground.report(Exited(run, reason, verdict.delay, verdict.count, limit))

    def _tell_failed(self, _number: int) -> None:
        run = Run(self.spec.name, self.instance, self.slot.generation)
        self._ground.report(Failed(run, self._last_exit(), self._verdict.count))

    def _tell_finished(self, _number: int) -> None:
        if self._backoff is not None:
            self._backoff.cancel()
            self._backoff = None
        if self.slot.state.desired is Desired.UP:
            run = Run(self.spec.name, self.instance, self.slot.generation)
            self._ground.report(Finished(run, self._last_exit()))

    def _tell_kept(self, number: int) -> None:
        reason = self._last_exit()
        if reason.cause in ("stop", "reload"):
            return
        run = Run(self.spec.name, self.instance, number)
        self._ground.report(ReloadFailed(run, reason, self.started_at))

    def _last_exit(self) -> ExitReason:
        return self.last_exit or ExitReason("never started")
