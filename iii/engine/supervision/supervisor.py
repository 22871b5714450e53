"""Keeps the workers of a project running, or stopped, as iii.toml and the user's commands say.

Owns the instances of every worker: their start order, the commands to them, changes of their files and of iii.toml, and
the rows of `iii ps`. It neither speaks with workers nor routes calls: the engine does, through `hooks.py`. Everything
runs on the event loop's thread; only the coroutines wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace

from iii.engine.config.spec import ProjectSpec, WorkerSpec
from iii.engine.supervision.generation import Generation
from iii.engine.supervision.hooks import Environment, Spawn, SupervisionContext, SupervisorHooks
from iii.engine.supervision.instance import Instance, unavailable_reason
from iii.engine.supervision.lifecycle import Actual, Availability, Desired, Event
from iii.engine.supervision.process import spawn
from iii.engine.supervision.process_metrics import ProcessMetrics
from iii.engine.supervision.reports import AllReady, AllStopped, LogLine, Notice, Reporter, Stream
from iii.engine.supervision.restart_policy import LoopGuard
from iii.engine.supervision.run import Run
from iii.engine.supervision.start_order import dependents_first, with_dependencies

_NO_DIGESTS: Mapping[str, str | None] = MappingProxyType({})
_SETTLED = (Actual.READY, Actual.FAILED, Actual.STOPPED)


class Supervisor:
    """The workers of one project. Make it inside a running loop.

    `environment` returns the whole environment of a process, `spawn` starts one; `reporter` is called with what happens
    (see reports.py), `redact` takes secrets out of what workers write; `on_files(worker, files, digests)` is called
    whenever the files that a worker consists of change, with the digests of what it has loaded, None for a file that it
    has looked for in vain.
    """

    def __init__(
        self,
        project: ProjectSpec,
        *,
        hooks: SupervisorHooks,
        environment: Environment,
        reporter: Reporter,
        redact: Callable[[str], str],
        on_files: Callable[[str, frozenset[str], Mapping[str, str | None]], None],
        spawn: Spawn = spawn,
    ) -> None:
        self._context = SupervisionContext(project.root, hooks, environment, reporter, redact, spawn)
        self._project = project
        self._on_files = on_files
        self._instances: dict[tuple[str, int], Instance] = {}
        self._files: dict[Run, frozenset[str]] = {}
        self._available: dict[str, Availability] = {}
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._process_metrics = ProcessMetrics(self._on_memory_sampled)
        self._loop_guard = LoopGuard()
        for spec in project.workers.values():
            for index in range(spec.instances):
                self._add_instance(spec, index)

    # Commands.

    async def start(self, names: Iterable[str] = (), settle: Callable[[], Awaitable[None]] | None = None) -> None:
        """Start the named workers and those they come `after` (all if no name is given); return when each is up or
        has failed, and `settle` has ended.
        """
        began = time.monotonic()
        wanted = with_dependencies(names, self._project.workers) or set(self._project.workers)
        instances = [instance for instance in self._instances.values() if instance.spec.name in wanted]
        self._process_metrics.start(self._generations)
        await self._command(instances, Event.START)
        if settle is not None:
            await settle()
        # The first workers may have been spawned before this engine was loaded.
        began = min([began, *(generation.started_at for generation in self._generations() if generation.started_at)])
        down = {instance.spec.name for instance in instances if instance.availability is not Availability.SERVING}
        self._context.report(AllReady(time.monotonic() - began, tuple(sorted(down))))

    async def shutdown(self) -> None:
        """Stop every worker, dependents first; return when no process is left."""
        began = time.monotonic()
        running = {instance.spec.name for instance in self._instances.values() if not instance.state.is_empty}
        for names in dependents_first(self._project.workers):
            await self._command([instance for name in names for instance in self._instances_of(name)], Event.STOP)
        await self._until(lambda: all(instance.state.is_empty for instance in self._instances.values()))
        self._process_metrics.stop()
        self._context.report(AllStopped(time.monotonic() - began, len(running)))

    def kill(self) -> None:
        """Kill every process group now. `shutdown` must still be awaited."""
        for generation in self._generations():
            generation.kill()

    async def command_worker(self, name: str, event: Event) -> list[dict[str, Any]]:
        """START, STOP or RESTART one worker; return its rows when it is up, has failed, or its processes are gone.

        Raises KeyError for an unknown name.
        """
        instances = self._instances_of(name)
        if not instances:
            raise KeyError(name)
        await self._command(instances, event)
        return [self._row(instance) for instance in instances]

    def apply(self, project: ProjectSpec, touched: Collection[str] = (), files: tuple[str, ...] = ()) -> None:
        """Take over a changed iii.toml: stop what is gone, start what is new, reload what differs.

        `touched` names workers that a change of `files` concerns although their tables are the same: those whose
        environment an .env file has changed.
        """
        old = self._project
        self._project = project
        for instance in list(self._instances.values()):
            if not self._is_wanted(instance):
                instance.command(Event.STOP)
        for spec in project.workers.values():
            self._apply_worker(spec, old.workers.get(spec.name))
        for name in touched:
            specs = old.workers.get(name), project.workers.get(name)
            if specs[0] and specs[1] and _is_same_program(specs[0], specs[1]):
                self.on_changed(name, files)

    def _apply_worker(self, spec: WorkerSpec, old: WorkerSpec | None) -> None:
        for index in range(spec.instances):
            instance = self._instances.get((spec.name, index))
            if instance is None:
                instance = self._add_instance(spec, index)
                self._tell_files(spec.name)
                instance.command(Event.START)
            elif old is None:
                instance.spec = spec
                instance.command(Event.START)
            elif not _is_same_program(spec, old):
                instance.spec = spec
                instance.command(Event.CHANGED, (str(self._project.file),))

    # Events that the engine passes on.

    def on_ready(self, run: Run, files: Iterable[str] = (), digests: Mapping[str, str | None] = _NO_DIGESTS) -> None:
        """The worker has registered everything; `files` and `digests` as for `on_files`, so far.

        It serves as soon as these files are at rest, if they still hold what it has loaded; else it is started again.
        """
        instance = self._instances.get((run.worker, run.instance))
        if instance is not None:
            self.on_files(run, files, digests)
            loaded = {path: digest for path, digest in digests.items() if digest is not None}
            instance.on_ready(run.generation, loaded)

    def on_files(self, run: Run, files: Iterable[str], digests: Mapping[str, str | None] = _NO_DIGESTS) -> None:
        """The worker's imports have looked at these files as well; `digests` as for `on_files` above."""
        if (run.worker, run.instance) in self._instances:
            self._files[run] = self._files.get(run, frozenset()) | frozenset(files)
            generations = self._instances[run.worker, run.instance].generations
            # What an earlier process has loaded was compared when it was new.
            is_newest = all(other.run.generation <= run.generation for other in generations)
            self._tell_files(run.worker, digests if is_newest else _NO_DIGESTS)

    def on_drained(self, run: Run) -> None:
        """No caller waits for this process any more."""
        if generation := self._generation(run):
            generation.on_drained()

    def on_unresponsive(self, run: Run, why: str, *, at_once: bool = False) -> None:
        """The worker gives no sign of life: replace it. `at_once`: kill it, without SIGTERM before."""
        if generation := self._generation(run):
            generation.give_up("unresponsive", why, at_once=at_once)

    def on_changed(self, worker: str, files: Iterable[str]) -> None:
        """Files of this worker (absolute, or relative to the root) have changed: reload every instance."""
        changed = tuple(files)
        instances = self._instances_of(worker)
        times = []
        for file in changed:
            with contextlib.suppress(OSError):
                times.append((self._project.root / file).stat().st_mtime)
        is_own = any(instance.was_starting_at(modified_at) for instance in instances for modified_at in times)
        if is_own and not self._loop_guard.allows(worker, time.monotonic()):
            text = f"reload paused: its start changes {', '.join(changed)}, which it is watched for"
            self._context.report(Notice(text, worker))
            return
        for instance in instances:
            instance.command(Event.CHANGED, changed)

    def log(self, run: Run, text: str, stream: Stream = "stdout") -> None:
        """Show a line that a worker has written, not to stderr, or that the engine says about it."""
        self._context.report(LogLine(run, time.time(), self._context.redact(text), stream))

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per instance, sorted by name; see `Instance.row` for the keys."""
        return [self._row(self._instances[key]) for key in sorted(self._instances)]

    # Inside.

    def _row(self, instance: Instance) -> dict[str, Any]:
        return instance.row(self._process_metrics.of(instance.serving))

    def _add_instance(self, spec: WorkerSpec, index: int) -> Instance:
        instance = self._instances[spec.name, index] = Instance(
            spec,
            index,
            self._context,
            can_start=self._can_start,
            on_changed=self._on_instance_changed,
            on_closed=self._forget_files,
        )
        return instance

    async def _command(self, instances: list[Instance], event: Event) -> None:
        """Command instances; wait until no process of them is left after STOP, else until each is up or has failed."""
        for instance in instances:
            instance.command(event)
        if event is Event.STOP:
            await self._until(lambda: all(instance.state.is_empty for instance in instances))
        else:
            await self._until(lambda: all(instance.state.is_settled for instance in instances))

    async def _until(self, is_met: Callable[[], bool]) -> None:
        if not is_met():
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((is_met, waiter))
            await waiter

    def _on_instance_changed(self, instance: Instance) -> None:
        name = instance.spec.name
        self._tell_availability(name)
        state = instance.state
        if not self._is_wanted(instance) and state.is_empty and state.lifecycle.desired is Desired.DOWN:
            self._instances.pop((name, instance.index), None)
            if not self._instances_of(name):
                self._available.pop(name, None)
                self._context.hooks.unavailable(name, unavailable_reason(()))
        self._context.start_limiter.admit()
        for entry in [entry for entry in self._waiters if entry[0]()]:
            self._waiters.remove(entry)
            if not entry[1].done():
                entry[1].set_result(None)

    def _tell_availability(self, name: str) -> None:
        """Tell the hooks what calls to this worker meet, if that has changed: the best of what its instances offer."""
        instances = self._instances_of(name)
        offers = {instance.availability for instance in instances}
        best = next((a for a in (Availability.SERVING, Availability.EXPECTED) if a in offers), Availability.UNAVAILABLE)
        if best is self._available.get(name, Availability.UNAVAILABLE):
            return
        self._available[name] = best
        if best is Availability.EXPECTED:
            self._context.hooks.expect(name)
        elif best is Availability.UNAVAILABLE:
            self._context.hooks.unavailable(name, unavailable_reason(instances))

    def _is_wanted(self, instance: Instance) -> bool:
        spec = self._project.workers.get(instance.spec.name)
        return spec is not None and instance.index < spec.instances

    def _can_start(self, spec: WorkerSpec) -> bool:
        """True when everything that the worker comes `after` is ready, or will not be."""
        before = [instance for name in spec.after for instance in self._instances_of(name)]
        return all(instance.state.lifecycle.actual in _SETTLED for instance in before)

    def _on_memory_sampled(self, generation: Generation, memory: int) -> None:
        limit = generation.spec.max_memory
        if limit is not None and memory > limit:
            used, allowed = (f"{size / 1e6:.0f} MB" for size in (memory, limit))
            generation.give_up("memory", f"used {used} of memory, over its limit of {allowed}")

    def _forget_files(self, run: Run) -> None:
        # The files of a dead generation stay known until a later one reports its own: among them is the file whose
        # change mends the worker.
        has_successor = any(
            (later.worker, later.instance) == (run.worker, run.instance) and later.generation > run.generation
            for later in self._files
        )
        if has_successor and self._files.pop(run, None) is not None:
            self._tell_files(run.worker)

    def _tell_files(self, worker: str, digests: Mapping[str, str | None] = _NO_DIGESTS) -> None:
        if worker not in self._project.workers:
            return
        script = self._project.workers[worker].script
        own = frozenset({str(script)}) if script else frozenset()
        files = own.union(*(files for run, files in self._files.items() if run.worker == worker))
        self._on_files(worker, files, digests)

    def _generation(self, run: Run) -> Generation | None:
        return next((generation for generation in self._generations() if generation.run == run), None)

    def _generations(self) -> list[Generation]:
        return [generation for instance in self._instances.values() for generation in instance.generations]

    def _instances_of(self, name: str) -> list[Instance]:
        return [instance for (worker, _), instance in self._instances.items() if worker == name]


def _is_same_program(spec: WorkerSpec, other: WorkerSpec) -> bool:
    """True when two specs differ at most in their line in iii.toml and in their number of instances."""
    return replace(spec, line=0, instances=1) == replace(other, line=0, instances=1)
