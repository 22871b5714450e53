"""The life of one process of a worker: wait for its turn, start, be ready, be asked to stop, die, be buried.

Owns the process, its stderr and its timers; knows nothing of other generations. `seat.py` starts and ends it,
and hears of its end exactly once, however it ends.

The stop ladder: retire and drain, ask over the protocol, SIGTERM to the group, SIGKILL to the group. Dead is
the leader when the pidfd says so, and the generation when its group is empty.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from iii.engine.config.spec import WorkerSpec
from iii.engine.supervision import procfs
from iii.engine.supervision.critical_tasks import start_critical
from iii.engine.supervision.hooks import Ground
from iii.engine.supervision.process import (
    Command,
    Process,
    SpawnError,
    command_line,
    keep_mark,
    missing_file,
    watch_exit,
)
from iii.engine.supervision.reports import Holding, LeftBehind, LogLine
from iii.engine.supervision.restart_policy import is_refusal
from iii.engine.supervision.run import Cause, ExitReason, Run, exit_words, parse_traceback
from iii.engine.supervision.start_limiter import Ticket
from iii.engine.supervision.stderr_lines import FLUSH_AFTER, StderrLines

# Share of stop_timeout that a worker on our SDK has to leave by itself; it needs milliseconds once it has
# drained.
ASK_SHARE = 0.5
# Programs without our SDK do not know `stop`: end of stdin is all they may notice before SIGTERM.
ASK_FOREIGN = 0.25
# A start that takes longer is waiting for something else than the processor: others may start.
PLACE_LIMIT = 2.0
# A wait that takes longer is shown with its holder.
HOLDING_AFTER = 1.0
STDERR_KEPT = 20  # lines, for the error that a caller sees
READ_SIZE = 64 * 1024  # larger reads cross malloc's threshold and cost ten times as much
# What a shell or `setpriv` says when it cannot execute a program.
_NOT_EXECUTABLE = (126, 127)


class _Timers(Struct):
    """The pending timers of one generation, by what they are for."""

    loop: asyncio.AbstractEventLoop
    pending: dict[str, asyncio.TimerHandle]

    def arm(self, name: str, delay: float, action: Callable[[], None]) -> None:
        self.cancel(name)
        self.pending[name] = self.loop.call_later(delay, action)

    def cancel(self, name: str) -> None:
        if timer := self.pending.pop(name, None):
            timer.cancel()

    def clear(self) -> None:
        for name in list(self.pending):
            self.cancel(name)


class Generation:
    """One process and everything about it.
    `ended(self, reason)` is called once, after the process is gone.
    """

    def __init__(
        self,
        run: Run,
        spec: WorkerSpec,
        ground: Ground,
        ended: Callable[[Generation, ExitReason], None],
    ) -> None:
        self.run = run
        self.spec = spec
        self.process: Process | None = None
        self.started_at = 0.0  # monotonic, when it was its turn
        self.ready_at: float | None = None  # monotonic
        self.is_ending = False
        self.was_opened = False  # the root has its pipes
        self._ground = ground
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._timers = _Timers(self._loop, {})
        self._feed = StderrLines()
        self._tail: deque[str] = deque(maxlen=STDERR_KEPT)
        self._cause: Cause = ""
        self._why = ""
        self._holds_place = False
        self._can_start: Callable[[], bool] = lambda: True
        self._life: asyncio.Task[None] | None = None
        self._ticket: Ticket | None = None

    def __repr__(self) -> str:
        return f"<Generation {self.run} pid {self.process.pid if self.process else None}>"

    @property
    def stderr(self) -> tuple[str, ...]:
        """The last lines it has written."""
        return tuple(self._tail)

    def start(self, can_start: Callable[[], bool]) -> None:
        """Begin its life as soon as there is room and `can_start()`."""
        self._can_start = can_start
        self._life = start_critical(self._live(), f"the life of {self.run}")

    def mark_ready(self) -> float:
        """Note that it has registered everything; return the seconds that took. What it said before is shown before."""
        if self.process is not None:
            self._on_stderr(self.process.stderr_fd)
        self.ready_at = time.monotonic()
        self._timers.cancel("ready")
        self._leave_gate()
        return self.ready_at - self.started_at

    def end(self, cause: Cause, drain: float) -> None:
        """Finish what runs on it within `drain` seconds, then stop it."""
        if self.is_ending:
            return
        self.is_ending = True
        self._cause = self._cause or cause
        if self.process is None:
            if self._ticket is not None:
                self._ground.gate.give_back(self._ticket)
        elif self.ready_at is None:
            self._terminate()
        else:
            self._retire(drain)

    def on_drained(self) -> None:
        """Nobody waits for it any more: go on with the ladder."""
        if self.is_ending and "drain" in self._timers.pending:
            self._timers.cancel("drain")
            self._timers.cancel("holding")
            self._ask()

    def give_up(self, cause: Cause, why: str, *, at_once: bool = False) -> None:
        """End it without draining because of what it does: too much memory, no sign of life.
        `at_once`: kill it, it cannot react.
        """
        if not self._cause and self.process is not None:
            self._cause, self._why = cause, why
            if at_once:
                self._signal(signal.SIGKILL)
            else:
                self._terminate()

    def kill(self) -> None:
        """Kill the group now."""
        self._cause = self._cause or "stop"
        if self.process is None:
            self.end(self._cause, 0.0)
        else:
            self.process.signal_group(signal.SIGKILL)

    # Its life, in order.

    async def _live(self) -> None:
        reason = await self._start_and_die()
        self._timers.clear()
        self._leave_gate()
        self._life = self._ticket = None  # they lead back here: nothing of an ended process waits for the collector
        self._ended(self, reason)

    async def _start_and_die(self) -> ExitReason:
        if not await self._has_turn():
            return ExitReason("stopped before it had started", cause=self._cause)
        self._timers.arm("place", PLACE_LIMIT, self._leave_gate)
        self.started_at = time.monotonic()
        environment = {**self._ground.environment(self.spec, self.run), **keep_mark(self.spec)}
        if self.spec.pre:
            reason = await self._run_process(Command(self.spec.pre, self.spec.cwd, environment, wire=False))
            if self.is_ending or reason.exit_code != 0:
                return replace(reason, words=f"pre: {reason.words}", cause=self._cause or "pre")
        if failure := missing_file(self.spec):
            return self._not_started(failure)
        return await self._run_process(Command(command_line(self.spec), self.spec.cwd, environment))

    async def _has_turn(self) -> bool:
        """Wait for a place; false if it was ended meanwhile, which may be after it was admitted and before it knew."""
        if self.is_ending:
            return False
        self._ticket = self._ground.gate.enter(self._can_start)
        self._holds_place = await self._ticket.admitted
        return self._holds_place and not self.is_ending

    async def _run_process(self, command: Command) -> ExitReason:
        process = self._ground.spawn(command)
        if isinstance(process, SpawnError):
            return self._not_started(process)
        self.process = process
        self.started_at = min(self.started_at, process.started_at)  # it may have had a head start
        died = self._loop.create_future()
        watch_exit(process.pid, self._loop, lambda: died.set_result(None))
        self._loop.add_reader(process.stderr_fd, self._on_stderr, process.stderr_fd)
        if command.wire:
            self._timers.arm("ready", self.spec.ready_timeout, self._on_not_ready)
            self.was_opened = True
            self._ground.hooks.opened(self.run, self.spec, process)
        await died
        return await self._bury(process, command.env)

    async def _bury(self, process: Process, environment: Mapping[str, str]) -> ExitReason:
        """Make sure that nothing of it is left, while its pid still cannot belong to anybody else."""
        process.signal_group(signal.SIGKILL)
        marks = procfs.marks_of(environment.items())
        left = await self._ground.census.clear(process.pid, marks, keep_children=self.spec.keep_children)
        if left:
            self._ground.report(LeftBehind(self.run, left, on_purpose=self.spec.keep_children))
        self._close_stderr(process)
        code = process.reap()
        self.process = None
        return self._reason(code)

    # The stop ladder.

    def _retire(self, drain: float) -> None:
        hooks = self._ground.hooks
        self._timers.arm("drain", drain, self._ask)
        hooks.retire(self.run)
        if hooks.owed(self.run) == 0:
            self.on_drained()
        else:
            self._timers.arm("holding", HOLDING_AFTER, lambda: self._tell_holder(drain))

    def _ask(self) -> None:
        self._timers.cancel("drain")
        self._timers.cancel("holding")
        timeout = self.spec.stop_timeout
        is_ours = not self.spec.is_foreign
        grace = timeout * ASK_SHARE if is_ours else min(ASK_FOREIGN, timeout)
        self._timers.arm("terminate", grace, lambda: self._signal(signal.SIGTERM))
        self._timers.arm("kill", timeout, lambda: self._signal(signal.SIGKILL))
        self._timers.arm("holding", HOLDING_AFTER, lambda: self._tell_holder(timeout))
        self._ground.hooks.send_stop(self.run, timeout)

    def _terminate(self) -> None:
        self._timers.arm("kill", self.spec.stop_timeout, lambda: self._signal(signal.SIGKILL))
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        if self.process is not None:
            self.process.signal_group(number)

    def _tell_holder(self, limit: float) -> None:
        calls = self._ground.hooks.owed(self.run)
        self._ground.report(Holding(self.run, calls, limit - HOLDING_AFTER))

    def _on_not_ready(self) -> None:
        self.give_up(
            "not ready",
            f"not ready within {self.spec.ready_timeout:g} s (did the script call register_worker()?)",
        )

    def _leave_gate(self) -> None:
        if self._holds_place:
            self._holds_place = False
            self._timers.cancel("place")
            self._ground.gate.leave()

    # What it writes.

    def _on_stderr(self, fd: int) -> None:
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(fd)
        self._tell(self._feed.feed(data, time.monotonic()))
        if self._feed.is_waiting and "flush" not in self._timers.pending:
            self._timers.arm("flush", FLUSH_AFTER, self._flush)

    def _flush(self) -> None:
        self._timers.cancel("flush")
        self._tell(self._feed.flush(time.monotonic()), is_partial=True)
        if self._feed.is_waiting:
            self._timers.arm("flush", FLUSH_AFTER, self._flush)

    def _close_stderr(self, process: Process) -> None:
        """Read what a dead process has left in the pipe:
        everybody who could still write is dead too, or was let go.
        """
        self._loop.remove_reader(process.stderr_fd)
        data = b"-"
        for _ in range(64):  # more than any pipe holds; a kept child that floods it must not keep us here
            try:
                data = os.read(process.stderr_fd, READ_SIZE)
            except BlockingIOError:
                break
            if not data:
                break
            self._tell(self._feed.feed(data, time.monotonic()))
        os.close(process.stderr_fd)
        self._tell(self._feed.close())

    def _tell(self, lines: list[str], *, is_partial: bool = False) -> None:
        for line in map(self._ground.hooks.redact, lines):
            self._tail.append(line)
            self._ground.report(LogLine(self.run, time.time(), line, is_partial=is_partial))

    # How it ended, as a value.

    def _not_started(self, failure: SpawnError) -> ExitReason:
        return ExitReason(failure.words, stderr=self.stderr, cause=self._cause or "spawn", permanent=failure.permanent)

    def _reason(self, code: int) -> ExitReason:
        number = -code if code < 0 else None
        words = exit_words(None if number else code, number, self._cause)
        was_ready = self.ready_at is not None
        is_unable = bool(self.spec.command) and code in _NOT_EXECUTABLE and not was_ready
        if is_unable and self._tail:
            words = f"cannot start {self.spec.command[0]}: {self._tail[-1]}"
        return ExitReason(
            words=f"{self._why}, {words}" if self._why else words,
            exit_code=None if number else code,
            signal=number,
            stderr=self.stderr,
            blamed=not self.is_ending and self._ground.hooks.busy(self.run) > 0,
            cause=self._cause,
            error=parse_traceback(self.stderr, self._ground.project.root),
            permanent=is_unable or is_refusal(code, is_standard=bool(self.spec.standard), was_ready=was_ready),
        )
