"""File changes -> workers to reload.

The watcher watches the folders that hold the files of workers, nothing else. Once a second it compares all known files
as well: an event that the kernel lost, or that came while the watches were renewed, costs a second, not a reload. What
a change means is decided in `dependency_graph`; the supervisor reloads. Runs as one task of the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType

from iii.engine.config.environment import ENV_FILES
from iii.engine.config.spec import ProjectSpec
from iii.engine.reload import watched_files
from iii.engine.reload.dependency_graph import Debounce, ReloadGraph
from iii.engine.reload.globs import Ignored, compile_glob, is_noise

STEP_INTERVAL = 0.02  # between two looks of the native watcher; a save waits half of it on average
BATCH_TIMEOUT = 0.1  # after which a batch ends although events keep coming
RESCAN_INTERVAL = 1.0  # between two looks at the known files
POLL_INTERVAL = 0.3  # between two looks where the kernel cannot tell of changes

_EXHAUSTED = {errno.ENOSPC: "fs.inotify.max_user_watches", errno.EMFILE: "fs.inotify.max_user_instances"}

# The library's own errors are RuntimeErrors, in a group if they come from its thread.
_WATCH_ERRORS = (OSError, RuntimeError, ExceptionGroup)
_NUMBER = re.compile(r"\(os error (\d+)\)")
_NO_MORE_WATCHES = "MaxFilesWatch"  # its own word for ENOSPC


_NO_DIGESTS: Mapping[str, str | None] = MappingProxyType({})


class Watcher:
    """Watches the files of a project's workers.

    `changed(worker, files)`: the worker is to be reloaded; `project_changed(files)`: iii.toml or an .env file has
    changed; `warn(text)`: a sentence for the user.
    """

    def __init__(
        self,
        project: ProjectSpec,
        *,
        changed: Callable[[str, tuple[str, ...]], None],
        project_changed: Callable[[tuple[str, ...]], None],
        warn: Callable[[str], None],
    ) -> None:
        self._changed = changed
        self._project_changed = project_changed
        self._warn = warn
        self._prefix = str(project.root).rstrip("/") + "/"
        self._graph = ReloadGraph(str(project.root))
        self._debounce = Debounce()
        self._timer: asyncio.TimerHandle | None = None
        self._rearm = asyncio.Event()
        self._begins_at = 0.0  # monotonic seconds
        self._signatures: dict[str, watched_files.Signature | None] = {}
        self._aliases: dict[str, str] = {}  # real path -> the path a worker reported
        self._folders: frozenset[str] = frozenset()
        self._ignored = Ignored()
        self._is_polling = False
        self._project = project
        self.apply(project)

    def apply(self, project: ProjectSpec) -> None:
        """Take over a changed iii.toml."""
        for name in self._project.workers.keys() - project.workers.keys():
            self._graph.remove(name)
        self._project = project
        self._project_files = frozenset({str(project.file), *(str(project.root / name) for name in ENV_FILES)})
        for name, spec in project.workers.items():
            globs = spec.watch or ()
            self._graph.set_globs(name, tuple(compile_glob(glob) for glob in globs))
            if spec.watch is None:
                self._graph.set_files(name, frozenset())
            elif spec.script is not None:
                # All that is known of a worker that has never been ready; a save of its script may mend it.
                self.set_files(name, self._graph.files_of(name) | {str(spec.script)})
        self._rearm.set()

    def set_files(self, worker: str, files: frozenset[str], digests: Mapping[str, str | None] = _NO_DIGESTS) -> None:
        """Watch the files that the worker consists of (absolute paths); `digests` are of those that it has loaded.

        A digest of None is of a file that was not there: one that was made since then has changed.
        """
        spec = self._project.workers.get(worker)
        if spec is None or spec.watch is None:
            return
        files = frozenset(map(str, spec.env_files)) | {
            os.path.join(os.path.abspath(file), "") if file.endswith("/") else os.path.abspath(file) for file in files
        }
        if overtaken := self._graph.overtaken(worker, digests):
            self._note(worker, overtaken)
            self._arm_debounce()
        for file in digests.keys() - self._signatures.keys():
            # Compared with what the worker has loaded or missed, not with what is there when the survey comes to it.
            self._graph.learn({file: digests[file]})
            self._signatures[file] = None
        before = self._graph.files
        self._graph.set_files(worker, files)
        if not self._graph.files <= before:
            self._rearm.set()

    async def run(self) -> None:
        """Watch until cancelled. The slow library is loaded after `begin`, or a second from now."""
        self._begins_at = time.monotonic() + RESCAN_INTERVAL
        while True:
            self._rearm.clear()
            folders = await asyncio.to_thread(self._survey)
            if (wait := self._begins_at - time.monotonic()) > 0:
                # Not `wait_for`, which loses a cancellation that comes just when the event is set.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._rearm.wait()
                continue
            async for paths in self._events(folders):
                if self._rearm.is_set():
                    break
                await self._on_events(paths)

    def begin(self) -> None:
        """Load the library now: the workers are up, and no longer need all of the processor."""
        self._begins_at = 0.0
        self._rearm.set()

    async def _events(self, folders: frozenset[str]) -> AsyncIterator[set[str]]:
        """Yield the paths that have changed, and an empty set once a second. End when the folders to watch change."""
        import watchfiles  # 40 ms that no worker has to wait for

        yield set()  # for what changed before the watches were there
        try:
            async for changes in watchfiles.awatch(
                *sorted(folders),
                watch_filter=None,
                step=round(STEP_INTERVAL * 1000),
                debounce=round(BATCH_TIMEOUT * 1000),
                stop_event=self._rearm,
                rust_timeout=round(RESCAN_INTERVAL * 1000),
                yield_on_timeout=True,
                recursive=False,
                force_polling=self._is_polling,
                poll_delay_ms=round(POLL_INTERVAL * 1000),
                # The survey leaves out what we may not read. If told to ignore it, the library would hide an exhausted
                # kernel as well.
                ignore_permission_denied=False,
                raise_interrupt=None,
            ):
                yield {path for _, path in changes}
        except _WATCH_ERRORS as error:
            self._on_watch_error(error)
            await asyncio.sleep(POLL_INTERVAL)

    def _on_watch_error(self, error: Exception) -> None:
        """Poll from now on if the kernel is exhausted; after any other error the next survey is enough."""
        setting = _EXHAUSTED.get(_number_of(error))
        if setting and not self._is_polling:
            self._is_polling = True
            self._warn(f"the kernel cannot watch more files: polling instead. To end this, raise {setting}")

    def _survey(self) -> frozenset[str]:
        """Find the folders to watch, and read the files that are new."""
        root = self._project.root
        globs = [glob for spec in self._project.workers.values() for glob in spec.watch or ()]
        glob_folders, glob_files, self._ignored = watched_files.files_of_globs(globs, root)
        files = self._graph.files | self._project_files
        self._aliases = {os.path.realpath(file): file for file in files}
        new = {file for file in (files | glob_files) if file not in self._signatures and self._is_relevant(file)}
        self._signatures.update({file: watched_files.signature_of(file) for file in new})
        self._graph.learn(watched_files.digests_of(new))
        folders = watched_files.folders_of(files, root) | glob_folders
        self._folders = frozenset(folder for folder in folders if _is_text(folder) and os.access(folder, os.R_OK))
        return self._folders

    def _is_relevant(self, path: str) -> bool:
        if path in self._project_files or path in self._graph.files:
            return True
        relative = path.removeprefix(self._prefix)
        return not is_noise(relative) and not self._ignored(relative) and bool(self._graph.workers_of(path))

    async def _on_events(self, paths: set[str]) -> None:
        named = {self._aliases.get(path, path) for path in paths}
        if any(path in self._folders or os.path.isdir(path) for path in named):
            self._rearm.set()  # a folder came, went or moved
        known = set(self._signatures)
        new = {path for path in named - known if self._is_relevant(path)}
        signatures = {path: watched_files.signature_of(path) for path in known | new}
        changed = {path for path, signature in signatures.items() if path in new or self._signatures[path] != signature}
        self._signatures.update(signatures)
        if not changed:
            return
        digests = await asyncio.to_thread(watched_files.digests_of, changed)
        project_files = self._project_files & digests.keys()
        if changed_project_files := self._graph.changed_among({path: digests[path] for path in project_files}):
            self._project_changed(changed_project_files)
        for worker, files in self._graph.observe(digests).items():
            self._note(worker, files)
        self._arm_debounce()

    def _note(self, worker: str, files: tuple[str, ...]) -> None:
        relative = tuple(file.removeprefix(self._prefix) for file in files)
        self._debounce.note(worker, relative, time.monotonic())

    def _arm_debounce(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_at = self._debounce.next_at()
        if due_at is not None:
            delay = max(0.0, due_at - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_due)

    def _on_due(self) -> None:
        self._timer = None
        for worker, files in self._debounce.due(time.monotonic() + 0.001).items():
            self._changed(worker, files)
        self._arm_debounce()


def _is_text(path: str) -> bool:
    """Whether the native library takes this path: it knows only those that are UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number_of(error: Exception) -> int:
    """Return the errno that the native library puts into its text, 0 if there is none."""
    errors = error.exceptions if isinstance(error, ExceptionGroup) else [error]
    text = " ".join(map(str, errors))
    if _NO_MORE_WATCHES in text:
        return errno.ENOSPC
    number = _NUMBER.search(text)
    return int(number[1]) if number else 0
