"""Keeps the workers of a project as they should be.

Owns one seat per instance of every worker: start order, commands, changes of files and of iii.toml, the facts
for `iii ps`. It neither speaks with workers nor routes calls: that is the root's, through `hooks.py`.
Everything runs on the event loop's thread; nothing here waits except the coroutines that somebody else
awaits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from iii.engine.config.spec import ProjectSpec, WorkerSpec
from iii.engine.supervision.generation import Generation
from iii.engine.supervision.hooks import Environment, Ground, Spawn, SupervisorHooks
from iii.engine.supervision.instance import Instance, Surroundings
from iii.engine.supervision.lifecycle import Actual, Availability, Desired, Event
from iii.engine.supervision.process import spawn
from iii.engine.supervision.process_metrics import ProcessMetrics
from iii.engine.supervision.reload_loop import LoopGuard
from iii.engine.supervision.reports import AllReady, AllStopped, LogLine, Notice, Reporter, Stream
from iii.engine.supervision.run import Run
from iii.engine.supervision.start_order import dependents_first, with_dependencies
from iii.engine.supervision.status_rows import row, unavailable_reason

_SETTLED = (Actual.READY, Actual.FAILED, Actual.STOPPED)


class Supervisor:
    """The workers of one project. Make it inside a running loop.

    `environment` returns the whole environment of a process, `spawn` starts one; `report` hears what happens (see
    reports.py); `on_files(worker, files)` hears which files a worker consists of, whenever that changes.
    """

    def __init__(
        self,
        project: ProjectSpec,
        *,
        hooks: SupervisorHooks,
        environment: Environment,
        reporter: Reporter,
        spawn: Spawn = spawn,
        on_files: Callable[[str, frozenset[str]], None] | None = None,
    ) -> None:
        self._ground = Ground(project, hooks, environment, reporter, spawn=spawn)
        self._project = project
        self._on_files = on_files
        self._seats: dict[tuple[str, int], Instance] = {}
        self._files: dict[Run, frozenset[str]] = {}
        self._available: dict[str, Availability] = {}
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._around = Surroundings(self._can_start, self._on_changed, self._forget)
        self._process_metrics = ProcessMetrics(self._over_limit)
        self._loop_guard = LoopGuard()
        self._reset_seats(project)

    def __repr__(self) -> str:
        ready = sum(seat.slot.state.actual is Actual.READY for seat in self._seats.values())
        return f"<Supervisor {len(self._project.workers)} workers, {ready} of {len(self._seats)} instances ready>"

    # Commands.

    async def start(self, names: Iterable[str] = ()) -> None:
        """Start the named workers and those they come `after` (all if none is named);
        wait until each is up or down.
        """
        began = time.monotonic()
        wanted = with_dependencies(names, self._project.workers) or set(self._project.workers)
        seats = [seat for seat in self._seats.values() if seat.spec.name in wanted]
        self._process_metrics.start(self._generations)
        for seat in seats:
            seat.command(Event.START)
        await self._until(lambda: all(_has_come_up_or_not(seat) for seat in seats))
        # The first workers may have begun before this engine was there.
        began = min([began, *(generation.started_at for generation in self._generations() if generation.started_at)])
        down = sorted({seat.spec.name for seat in seats if seat.availability is not Availability.SERVING})
        self._ground.report(AllReady(time.monotonic() - began, tuple(down)))

    async def shutdown(self) -> None:
        """Stop every worker, dependents first; return when no process is left."""
        began = time.monotonic()
        running = {seat.spec.name for seat in self._seats.values() if not seat.slot.is_empty}
        for names in dependents_first(self._project.workers):
            seats = [seat for name in names for seat in self._seats_of(name)]
            for seat in seats:
                seat.command(Event.STOP)
            await self._until_empty(seats)
        await self._until_empty(list(self._seats.values()))
        self._process_metrics.stop()
        self._ground.report(AllStopped(time.monotonic() - began, len(running)))

    def kill(self) -> None:
        """Kill every process group now. `shutdown` still has to be awaited."""
        for generation in self._generations():
            generation.kill()

    async def start_worker(self, name: str) -> list[dict[str, Any]]:
        """Start one worker; return its rows when it is up or down. Raises KeyError for an unknown name."""
        return await self._command_worker(name, Event.START)

    async def stop_worker(self, name: str) -> list[dict[str, Any]]:
        """Stop one worker; return its rows when its processes are gone.
        Raises KeyError for an unknown name.
        """
        return await self._command_worker(name, Event.STOP)

    async def restart_worker(self, name: str) -> list[dict[str, Any]]:
        """Replace one worker's processes; return its rows afterwards. Raises KeyError for an unknown name."""
        return await self._command_worker(name, Event.RESTART)

    def apply(self, project: ProjectSpec, touched: Collection[str] = (), files: tuple[str, ...] = ()) -> None:
        """Take over a changed iii.toml: stop what is gone, start what is new, reload what differs.
        `touched` names further workers that changed `files` concern, as an .env file does.
        """
        old = self._project
        self._project = project
        for seat in list(self._seats.values()):
            if seat.instance >= _instances(project, seat.spec.name):
                seat.command(Event.STOP)
        for spec in project.workers.values():
            self._apply_worker(spec, old.workers.get(spec.name))
        for name in touched:
            if (
                name in old.workers
                and name in project.workers
                and same_but_place(old.workers[name], project.workers[name])
            ):
                self.on_changed(name, files)

    # What the root tells.

    def on_ready(self, run: Run, files: Iterable[str] = ()) -> None:
        """The worker has registered everything; `files` are those it has imported so far."""
        seat = self._seats.get((run.worker, run.instance))
        if seat is not None:
            self.on_files(run, files)
            seat.on_ready(run.generation)

    def on_files(self, run: Run, files: Iterable[str]) -> None:
        """The worker has imported these as well."""
        if self._generation(run) is None:
            return
        self._files[run] = self._files.get(run, frozenset()) | frozenset(files)
        self._tell_files(run.worker)

    def on_drained(self, run: Run) -> None:
        """This process owes nobody an answer any more."""
        if generation := self._generation(run):
            generation.on_drained()

    def on_unresponsive(self, run: Run, why: str, *, at_once: bool = False) -> None:
        """The worker gives no sign of life: replace it. `at_once`: without asking it to end first."""
        if generation := self._generation(run):
            generation.give_up("unresponsive", why, at_once=at_once)

    def on_changed(self, worker: str, files: Iterable[str]) -> None:
        """Files of this worker (absolute, or relative to the root) have changed: reload every instance."""
        changed = tuple(files)
        if self._is_loop(worker, changed):
            return
        for seat in self._seats_of(worker):
            seat.command(Event.CHANGED, changed)

    def log(self, run: Run, text: str, stream: Stream = "stdout") -> None:
        """Show a line that a worker has written elsewhere than to stderr."""
        self._ground.report(LogLine(run, time.time(), self._ground.hooks.redact(text), stream))

    def rows(self) -> list[dict[str, Any]]:
        """Return one row an instance, by name; see row.py for the keys."""
        ordered = sorted(self._seats.values(), key=lambda seat: (seat.spec.name, seat.instance))
        return [row(seat, self._process_metrics.of(seat.serving)) for seat in ordered]

    # Inside.

    def _reset_seats(self, project: ProjectSpec) -> None:
        for spec in project.workers.values():
            for instance in range(spec.instances):
                self._add_seat(spec, instance)

    def _add_seat(self, spec: WorkerSpec, instance: int) -> Instance:
        seat = Instance(spec, instance, self._ground, self._around)
        self._seats[spec.name, instance] = seat
        self._tell_files(spec.name)
        return seat

    def _apply_worker(self, spec: WorkerSpec, old: WorkerSpec | None) -> None:
        for instance in range(spec.instances):
            seat = self._seats.get((spec.name, instance))
            if seat is None:
                self._add_seat(spec, instance).command(Event.START)
            elif old is None:
                seat.spec = spec
                seat.command(Event.START)
            elif not same_but_place(spec, old):
                seat.spec = spec
                seat.command(Event.CHANGED, (str(self._project.file),))

    async def _command_worker(self, name: str, event: Event) -> list[dict[str, Any]]:
        seats = self._seats_of(name)
        if not seats:
            raise KeyError(name)
        for seat in seats:
            seat.command(event)
        if event is Event.STOP:
            await self._until_empty(seats)
        else:
            await self._until(lambda: all(_has_come_up_or_not(seat) for seat in seats))
        return [row(seat, self._process_metrics.of(seat.serving)) for seat in seats]

    async def _until_empty(self, seats: list[Instance]) -> None:
        await self._until(lambda: all(seat.slot.is_empty for seat in seats))

    async def _until(self, is_met: Callable[[], bool]) -> None:
        if is_met():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((is_met, waiter))
        await waiter

    def _on_changed(self, seat: Instance) -> None:
        self._tell_availability(seat.spec.name)
        self._drop_if_gone(seat)
        self._ground.gate.admit()
        for entry in [entry for entry in self._waiters if entry[0]()]:
            self._waiters.remove(entry)
            if not entry[1].done():
                entry[1].set_result(None)

    def _tell_availability(self, name: str) -> None:
        seats = self._seats_of(name)
        available = _best(seat.availability for seat in seats)
        if available is self._available.get(name, Availability.UNAVAILABLE):
            return
        self._available[name] = available
        if available is Availability.EXPECTED:
            self._ground.hooks.expect(name)
        elif available is Availability.UNAVAILABLE:
            self._ground.hooks.unavailable(name, unavailable_reason(seats))

    def _drop_if_gone(self, seat: Instance) -> None:
        is_wanted = seat.instance < _instances(self._project, seat.spec.name)
        if not is_wanted and seat.slot.is_empty and seat.slot.state.desired is Desired.DOWN:
            self._seats.pop((seat.spec.name, seat.instance), None)
            if not self._seats_of(seat.spec.name):
                self._available.pop(seat.spec.name, None)
                self._ground.hooks.unavailable(seat.spec.name, unavailable_reason(()))

    def _can_start(self, spec: WorkerSpec) -> bool:
        """True when everything that the worker comes `after` is ready, or will not be."""
        before = [seat for name in spec.after for seat in self._seats_of(name)]
        return all(seat.slot.state.actual in _SETTLED for seat in before)

    def _is_loop(self, worker: str, files: tuple[str, ...]) -> bool:
        written = [modified for file in files if (modified := _modified_at(self._project.root / file))]
        seats = self._seats_of(worker)
        is_own = any(seat.was_starting_at(modified) for seat in seats for modified in written)
        if not is_own or self._loop_guard.allows(worker, time.monotonic()):
            return False
        text = f"reload paused: its start changes {', '.join(files)}, which it is watched for"
        self._ground.report(Notice(text, worker))
        return True

    def _over_limit(self, generation: Generation, memory: int) -> None:
        limit = generation.spec.max_memory
        if limit is not None and memory > limit:
            used, allowed = (f"{size / 1e6:.0f} MB" for size in (memory, limit))
            generation.give_up("memory", f"used {used} of memory, over its limit of {allowed}")

    def _forget(self, run: Run) -> None:
        # What a dead generation consisted of stays known until a later one says what it consists of: the file
        # that mends a worker is among them.
        newer = [r for r in self._files if _same_seat(r, run) and r.generation > run.generation]
        if newer and self._files.pop(run, None) is not None:
            self._tell_files(run.worker)

    def _tell_files(self, worker: str) -> None:
        if self._on_files is None or worker not in self._project.workers:
            return
        script = self._project.workers[worker].script
        reported = [files for run, files in self._files.items() if run.worker == worker]
        own = frozenset({str(script)}) if script else frozenset()
        self._on_files(worker, own.union(*reported))

    def _generation(self, run: Run) -> Generation | None:
        seat = self._seats.get((run.worker, run.instance))
        found = [generation for generation in seat.generations if generation.run == run] if seat else []
        return found[0] if found else None

    def _generations(self) -> list[Generation]:
        return [generation for seat in self._seats.values() for generation in seat.generations]

    def _seats_of(self, name: str) -> list[Instance]:
        return [seat for (worker, _), seat in self._seats.items() if worker == name]


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _has_come_up_or_not(seat: Instance) -> bool:
    return seat.slot.is_settled


def _instances(project: ProjectSpec, name: str) -> int:
    spec = project.workers.get(name)
    return spec.instances if spec else 0


def same_but_place(one: WorkerSpec, other: WorkerSpec) -> bool:
    """True when two specs differ at most in where they stand in iii.toml and in how many instances they ask
    for.
    """
    return replace(one, line=0, instances=1) == replace(other, line=0, instances=1)


def _best(availabilities: Iterable[Availability]) -> Availability:
    found = set(availabilities)
    order = (Availability.SERVING, Availability.EXPECTED)
    return next((one for one in order if one in found), Availability.UNAVAILABLE)


def _same_seat(one: Run, other: Run) -> bool:
    return (one.worker, one.instance) == (other.worker, other.instance)
