"""One generation of a worker: one process, from waiting for its turn to start until nothing of it is left.

Owns the process, its stderr and its timers; knows nothing of other generations. `instance.py` starts and ends it, and
is called back exactly once when the generation is over, however it ended.

The stop ladder: retire and drain, `stop` over the protocol, SIGTERM to the group, SIGKILL to the group. The leader is
dead when its pidfd says so; the generation is over when the leader's group is empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import time
from collections import deque
from collections.abc import Callable

from msgspec.structs import replace

from iii.engine.config.spec import WorkerSpec
from iii.engine.supervision import procfs
from iii.engine.supervision.critical_tasks import start_critical
from iii.engine.supervision.hooks import SupervisionContext
from iii.engine.supervision.process import Command, Process, SpawnError, command_of, missing_file, watch_exit
from iii.engine.supervision.reports import Holding, LeftBehind, LogLine, Notice
from iii.engine.supervision.restart_policy import is_refusal
from iii.engine.supervision.run import Cause, ExitReason, Run, exit_words
from iii.engine.supervision.stack_traces import error_behind
from iii.engine.supervision.start_limiter import Ticket
from iii.engine.supervision.stderr_lines import PARTIAL_LINE_TIMEOUT, StderrLines
from iii.engine.supervision.timers import Timers
from iii.errors import ProjectError

# Share of stop_timeout between `stop` and SIGTERM. A drained worker on our SDK needs milliseconds to leave.
STOP_SHARE = 0.5
# Seconds between the end of stdin and SIGTERM for programs without our SDK: they do not know `stop`.
FOREIGN_STOP_TIMEOUT = 0.25
# A start that takes longer waits for something else than the processor: the next may begin.
START_PLACE_TIMEOUT = 2.0
# Seconds after which a stop or a reload that still waits is reported.
HOLDING_TIMEOUT = 1.0
MAX_STDERR_LINES = 20  # for the error that a caller sees
MAX_TRACEBACK_LINES = 200  # kept to find the lines of the project in them
READ_SIZE = 64 * 1024  # larger reads cross malloc's threshold and cost ten times as much
# Exit codes of a shell or `setpriv` that cannot execute a program.
_NOT_EXECUTABLE = (126, 127)


# What a Python script lacks that has ended by itself without having been a worker.
NO_WORKER = 'a worker calls register_worker(); a script that only has to run once has restart = "never" in iii.toml'


class Generation:
    """One process and everything about it. `on_ended(self, reason)` is called once, after the process is gone."""

    def __init__(
        self,
        run: Run,
        spec: WorkerSpec,
        context: SupervisionContext,
        on_ended: Callable[[Generation, ExitReason], None],
    ) -> None:
        self.run = run
        self.spec = spec
        self.process: Process | None = None
        self.started_at = 0.0  # monotonic; 0 until its start was admitted
        self.ready_at: float | None = None  # monotonic
        self.is_ending = False
        self.was_opened = False  # the hooks own its pipes
        self._context = context
        self._on_ended = on_ended
        self._loop = asyncio.get_running_loop()
        self._timers = Timers()
        self._stderr_lines = StderrLines()
        # When each line came (monotonic), and the line.
        self._tail: deque[tuple[float, str]] = deque(maxlen=MAX_TRACEBACK_LINES)
        self._died_at = 0.0  # monotonic
        self._cause: Cause = ""
        self._why = ""
        self._life: asyncio.Task[None] | None = None
        self._ticket: Ticket | None = None

    @property
    def stderr(self) -> tuple[str, ...]:
        """The last lines it has written."""
        return tuple(line for _, line in self._tail)[-MAX_STDERR_LINES:]

    def start(self, can_start: Callable[[], bool]) -> None:
        """Start the process as soon as there is room and `can_start()` is true."""
        self._life = start_critical(self._live(can_start), f"the life of {self.run}")

    def mark_ready(self) -> float:
        """Note that the worker has registered everything; return the seconds that took."""
        if self.process is not None:
            self._on_stderr(self.process.stderr_fd)  # what it wrote before is shown before
        self.ready_at = time.monotonic()
        self._timers.cancel("ready")
        self._leave_start_limiter()
        return self.ready_at - self.started_at

    def stop_waiting_for_ready(self) -> None:
        """The worker has registered everything, and serves as soon as its files are known to be at rest."""
        self._timers.cancel("ready")

    def end(self, cause: Cause, drain_timeout: float) -> None:
        """Let the process finish its calls, within `drain_timeout` seconds, then stop it."""
        if self.is_ending:
            return
        self.is_ending = True
        self._cause = self._cause or cause
        if self.process is None:
            self._leave_start_limiter()
        elif self.ready_at is None:
            self._terminate()
        else:
            self._timers.arm("drain", drain_timeout, self._ask_to_stop)
            self._context.hooks.retire(self.run)
            if self._context.hooks.owed(self.run) == 0:
                self.on_drained()
            else:
                self._arm_holding_report(drain_timeout)

    def on_drained(self) -> None:
        """No caller waits for this process any more: go on with the stop ladder."""
        if self.is_ending and "drain" in self._timers:
            self._ask_to_stop()

    def give_up(self, cause: Cause, why: str, *, at_once: bool = False) -> None:
        """End the process without draining because of what it does: too much memory, no sign of life.

        `at_once`: kill it, without SIGTERM before.
        """
        if not self._cause and self.process is not None:
            self._cause, self._why = cause, why
            if at_once:
                self._signal(signal.SIGKILL)
            else:
                self._terminate()

    def kill(self) -> None:
        self._cause = self._cause or "stop"
        if self.process is None:
            self.end(self._cause, 0.0)
        else:
            self.process.signal_group(signal.SIGKILL)

    # The life of the process, in order.

    async def _live(self, can_start: Callable[[], bool]) -> None:
        reason = await self._start_and_die(can_start)
        self._timers.clear()
        self._leave_start_limiter()
        # Both refer back to this object; without them its memory is free at once, and not at the next collection.
        self._life = self._ticket = None
        self._on_ended(self, reason)

    async def _start_and_die(self, can_start: Callable[[], bool]) -> ExitReason:
        if not self.is_ending:
            self._ticket = self._context.start_limiter.enter(can_start)
            await self._ticket.admitted
        if self.is_ending:  # since before this task ran, or while it was queued, or since it was admitted
            return ExitReason("stopped before it had started", cause=self._cause)
        self._timers.arm("place", START_PLACE_TIMEOUT, self._leave_start_limiter)
        self.started_at = time.monotonic()
        try:
            command = command_of(self.spec, self._context.environment(self.spec, self.run))
        except ProjectError as error:  # an env file is gone or wrong since iii.toml was read
            number = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
            unread = SpawnError(number or errno.EINVAL, self.run.worker, str(error))
            if unread.permanent:
                return ExitReason(str(error), cause=self._cause or "spawn", permanent=True)
            return self._not_started(unread)
        if self.spec.pre:
            reason = await self._run_process(replace(command, argv=self.spec.pre, wire=False))
            if self.is_ending or reason.exit_code != 0:
                return replace(reason, words=f"pre: {reason.words}", cause=self._cause or "pre")
        if failure := missing_file(self.spec):
            return self._not_started(failure)
        return await self._run_process(command)

    async def _run_process(self, command: Command) -> ExitReason:
        process = self._context.spawn(command)
        if isinstance(process, SpawnError):
            return self._not_started(process)
        self.process = process
        # The process may have been spawned before the engine was loaded.
        self.started_at = min(self.started_at, process.started_at)
        died = self._loop.create_future()
        watch_exit(process.pid, self._loop, lambda: died.set_result(None))
        self._loop.add_reader(process.stderr_fd, self._on_stderr, process.stderr_fd)
        if command.wire:
            timeout = self.spec.ready_timeout
            why = f"not ready within {timeout:g} s (did the script call register_worker()?)"
            self._timers.arm("ready", timeout, lambda: self.give_up("not ready", why))
            self.was_opened = True
            self._context.hooks.opened(self.run, self.spec, process)
        await died
        self._died_at = time.monotonic()
        return await self._bury(process, procfs.marks_of(command.env.items()))

    async def _bury(self, process: Process, marks: frozenset[bytes]) -> ExitReason:
        """Kill what is left of the process group, then reap the leader: until then no other process can get its pid."""
        process.signal_group(signal.SIGKILL)
        try:
            left = await self._context.orphans.clear(process, marks, keep_children=self.spec.keep_children)
        except OSError as error:
            text = f"could not look for processes that it has left behind ({error.strerror}); the next start ends them"
            self._context.report(Notice(text, self.spec.name, "error"))
        else:
            if left:
                self._context.report(LeftBehind(self.run, left, on_purpose=self.spec.keep_children))
        self._close_stderr(process)
        code = process.reap()
        self.process = None
        return self._reason(code)

    # The stop ladder.

    def _ask_to_stop(self) -> None:
        self._timers.cancel("drain")
        timeout = self.spec.stop_timeout
        term_after = min(FOREIGN_STOP_TIMEOUT, timeout) if self.spec.is_foreign else timeout * STOP_SHARE
        self._timers.arm("terminate", term_after, lambda: self._signal(signal.SIGTERM))
        self._timers.arm("kill", timeout, lambda: self._signal(signal.SIGKILL))
        self._arm_holding_report(timeout)
        self._context.hooks.send_stop(self.run, timeout)

    def _terminate(self) -> None:
        self._timers.arm("kill", self.spec.stop_timeout, lambda: self._signal(signal.SIGKILL))
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        if self.process is not None:
            self.process.signal_group(number)

    def _arm_holding_report(self, timeout: float) -> None:
        def report() -> None:
            calls = self._context.hooks.owed(self.run)
            self._context.report(Holding(self.run, calls, timeout - HOLDING_TIMEOUT))

        self._timers.arm("holding", HOLDING_TIMEOUT, report)

    def _leave_start_limiter(self) -> None:
        self._timers.cancel("place")
        if self._ticket is not None:
            self._context.start_limiter.leave(self._ticket)

    # What the process writes to stderr.

    def _on_stderr(self, fd: int) -> None:
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(fd)
        self._log(self._stderr_lines.feed(data, time.monotonic()))
        self._flush_later()

    def _flush_later(self) -> None:
        def flush() -> None:
            notes, begun = self._stderr_lines.flush(time.monotonic())
            self._log(notes)
            if begun:
                text = self._context.redact(begun)
                self._context.report(LogLine(self.run, time.time(), text, is_partial=True))

        if self._stderr_lines.is_waiting and "flush" not in self._timers:
            self._timers.arm("flush", PARTIAL_LINE_TIMEOUT, flush)

    def _close_stderr(self, process: Process) -> None:
        """Read what a dead process has left in the pipe. Every other writer is dead too, or is a child to be kept."""
        self._loop.remove_reader(process.stderr_fd)
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):  # more than any pipe holds; a kept child that goes on writing must not keep us here
                data = os.read(process.stderr_fd, READ_SIZE)
                if not data:
                    break
                self._log(self._stderr_lines.feed(data, time.monotonic()))
        os.close(process.stderr_fd)
        self._log(self._stderr_lines.close())

    def _log(self, lines: list[str]) -> None:
        now, at = time.monotonic(), time.time()
        for line in map(self._context.redact, lines):
            self._tail.append((now, line))
            self._context.report(LogLine(self.run, at, line))

    # How the process ended, as a value.

    def _not_started(self, failure: SpawnError) -> ExitReason:
        return ExitReason(failure.words, stderr=self.stderr, cause=self._cause or "spawn", permanent=failure.permanent)

    def _reason(self, code: int) -> ExitReason:
        number = -code if code < 0 else None
        words = exit_words(None if number else code, number, self._cause)
        was_ready = self.ready_at is not None
        is_unable = bool(self.spec.command) and code in _NOT_EXECUTABLE and not was_ready
        if is_unable and self._tail:
            words = f"cannot start {self.spec.command[0]}: {self.stderr[-1]}"
        elif code == 0 and not (was_ready or self._cause or self.spec.is_foreign or self.spec.restart == "never"):
            words = f"{words} before it was ready: {NO_WORKER}"
        return ExitReason(
            words=f"{self._why}, {words}" if self._why else words,
            exit_code=None if number else code,
            signal=number,
            stderr=self.stderr,
            blamed=not self.is_ending and self._context.hooks.busy(self.run) > 0,
            cause=self._cause,
            error=None if self._cause else error_behind(code, self._tail, self._died_at, self._context.root),
            permanent=is_unable or is_refusal(code, is_standard=bool(self.spec.standard), was_ready=was_ready),
        )
