"""The watcher on a real file system: each test is one way to save, or not to."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Coroutine
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from iii.engine.config.regular_file import digest_of_file
from iii.engine.config.spec import ProjectSpec, WorkerSpec
from iii.engine.reload import watcher as module
from iii.engine.reload.watcher import Watcher, _number_of


class Ears:
    """Hears what the watcher tells."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[str, tuple[str, ...]]] = asyncio.Queue()
        self.warnings: list[str] = []

    def changed(self, worker: str, files: tuple[str, ...]) -> None:
        self.heard.put_nowait((worker, files))

    def project_changed(self, files: tuple[str, ...]) -> None:
        self.heard.put_nowait(("", tuple(Path(file).name for file in files)))

    async def next(self) -> tuple[str, tuple[str, ...]]:
        """The next that is told, echoes of `is_armed` left out."""
        while (told := await asyncio.wait_for(self.heard.get(), 20)) == ECHO:
            continue
        return told


def digest_of_text(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


ECHO = ("", ("iii.toml",))
Scenario = Callable[[Watcher, Ears], Coroutine[Any, Any, None]]


def watch(
    root: Path,
    scenario: Scenario,
    files: tuple[str, ...] = ("a.py", "lib/b.py"),
    *,
    at_once: bool = True,
    others: tuple[str, ...] = (),
    **spec: Any,
) -> Ears:
    """Watch worker `a`, made of these files, and play the scenario once a first change has been heard."""
    (root / "lib").mkdir(exist_ok=True)
    for name in ("a.py", "lib/b.py"):
        (root / name).write_text("old")

    async def play() -> Ears:
        ears = Ears()
        workers = {name: WorkerSpec(name=name, cwd=root, **spec) for name in ("a", *others)}
        project = ProjectSpec(root=root, name="p", file=root / "iii.toml", workers=workers)
        watcher = Watcher(
            project, changed=ears.changed, project_changed=ears.project_changed, warn=ears.warnings.append
        )
        if files:
            watcher.set_files("a", frozenset(str(root / file) for file in files))
        task = asyncio.create_task(watcher.run())
        await asyncio.sleep(0)  # it has begun to wait
        if at_once:
            watcher.begin()
        try:
            await (is_armed(root, ears) if at_once else is_surveyed(watcher, root))
            await scenario(watcher, ears)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return ears

    return asyncio.run(play())


async def is_armed(root: Path, ears: Ears) -> None:
    """Write the project file until the watcher tells of it."""
    for number in range(400):
        (root / "iii.toml").write_text(f"# {number}")
        with contextlib.suppress(TimeoutError):
            assert await asyncio.wait_for(ears.heard.get(), 0.05) == ECHO
            return
    raise AssertionError("the watcher never heard of the project file")


async def is_surveyed(watcher: Watcher, folder: Path) -> None:
    """Wait until the watcher knows what the files of a folder held, which is before it hears of changes."""
    while str(folder) not in watcher._folders:
        await asyncio.sleep(0.001)  # between two looks


@pytest.mark.parametrize("is_up", [True, False])
def test_what_is_saved_while_the_workers_start_is_told_when_they_are_up_or_after_a_second(
    tmp_path: Path, *, is_up: bool
) -> None:
    async def scenario(watcher: Watcher, ears: Ears) -> None:
        (tmp_path / "lib/b.py").write_text("new")
        if is_up:
            watcher.begin()
        assert await asyncio.wait_for(ears.next(), 0.9 if is_up else 5) == ("a", ("lib/b.py",))

    watch(tmp_path, scenario, at_once=False)


@pytest.mark.parametrize("turns", range(5))
def test_a_stop_in_the_moment_in_which_the_workers_are_up_ends_it(tmp_path: Path, turns: int) -> None:
    async def scenario(watcher: Watcher, _ears: Ears) -> None:
        watcher.begin()
        for _ in range(turns):
            await asyncio.sleep(0)

    # `watch` cancels it after the scenario, and waits for its end.
    watch(tmp_path, scenario, at_once=False)


def test_what_becomes_known_while_the_workers_start_is_watched_from_then_on(tmp_path: Path) -> None:
    async def scenario(watcher: Watcher, ears: Ears) -> None:
        watcher.set_files("a", frozenset({str(tmp_path / "a.py"), str(tmp_path / "lib/b.py")}))
        await is_surveyed(watcher, tmp_path / "lib")
        (tmp_path / "lib/b.py").write_text("new")
        assert await ears.next() == ("a", ("lib/b.py",))

    watch(tmp_path, scenario, ("a.py",), at_once=False)


@pytest.mark.parametrize("loaded", [None, "another digest"])
def test_a_report_that_comes_after_the_change_it_missed_is_answered_with_the_change(
    tmp_path: Path, loaded: str | None
) -> None:
    """Two workers lack, or have loaded, the same file; it is mended between their reports."""
    shared = str(tmp_path / "shared.py")

    async def scenario(watcher: Watcher, ears: Ears) -> None:
        if loaded is not None:
            Path(shared).write_text("broken")
        watcher.set_files("a", frozenset({shared}), {shared: loaded and digest_of_file(shared)})
        await is_surveyed(watcher, tmp_path)
        Path(shared).write_text("mended")
        assert await ears.next() == ("a", ("shared.py",))
        report = {shared: loaded and digest_of_text("broken")}
        watcher.set_files("b", frozenset({shared}), report)
        assert await ears.next() == ("b", ("shared.py",))
        watcher.set_files("b", frozenset({shared}), report)  # said again, it is no news
        watcher.set_files("b", frozenset({shared}), {shared: digest_of_file(shared)})
        Path(shared).write_text("the last")
        assert {await ears.next(), await ears.next()} == {("a", ("shared.py",)), ("b", ("shared.py",))}

    watch(tmp_path, scenario, others=("b",))


def test_a_save_tells_the_worker_and_the_file_within_the_root(tmp_path: Path) -> None:
    async def scenario(_watcher: Watcher, ears: Ears) -> None:
        (tmp_path / "lib/b.py").write_text("new")
        assert await ears.next() == ("a", ("lib/b.py",))

    watch(tmp_path, scenario)


def test_the_script_of_a_worker_that_never_said_its_files_is_watched(tmp_path: Path) -> None:
    async def scenario(_watcher: Watcher, ears: Ears) -> None:
        (tmp_path / "a.py").write_text("mended")
        assert await ears.next() == ("a", ("a.py",))

    watch(tmp_path, scenario, files=(), script=tmp_path / "a.py")


def test_touch_and_the_same_content_are_not_told(tmp_path: Path) -> None:
    async def scenario(_watcher: Watcher, ears: Ears) -> None:
        (tmp_path / "a.py").touch()
        (tmp_path / "a.py").chmod(0o600)
        (tmp_path / "a.py").write_text("old")
        (tmp_path / ".a.py.swp").write_text("x")
        (tmp_path / "lib/b.py").write_text("new")
        assert await ears.next() == ("a", ("lib/b.py",))

    watch(tmp_path, scenario)


def test_what_has_changed_since_a_worker_has_loaded_it_is_told(tmp_path: Path) -> None:
    async def scenario(watcher: Watcher, ears: Ears) -> None:
        for name in ("c.py", "d.py"):
            (tmp_path / name).write_text("new")
        files = {str(tmp_path / name): digest_of_file(tmp_path / name) or "" for name in ("c.py", "d.py")}
        (tmp_path / "d.py").write_text("newer")  # before the watcher has ever looked at it
        watcher.set_files("a", frozenset(files), files)
        assert await ears.next() == ("a", ("d.py",))

    watch(tmp_path, scenario)


@pytest.mark.parametrize("made", ["fresh.py", "fresh/__init__.py", "fresh/deep.py", "pkg/plugin.py"])
@pytest.mark.parametrize("is_late", [True, False])
def test_what_an_import_has_not_found_is_told_when_it_is_there(tmp_path: Path, made: str, *, is_late: bool) -> None:
    (tmp_path / "pkg").mkdir()

    async def scenario(watcher: Watcher, ears: Ears) -> None:
        missing = [f"{tmp_path}/{name}" for name in ("fresh.py", "fresh/__init__.py", "fresh/", "pkg/plugin.py")]
        if is_late:
            watcher.set_files("a", frozenset(missing), dict.fromkeys(missing))
            await is_surveyed(watcher, tmp_path / "pkg")
        (tmp_path / made).parent.mkdir(exist_ok=True)
        (tmp_path / made).write_text("new")
        if not is_late:  # between the import and the report
            watcher.set_files("a", frozenset(missing), dict.fromkeys(missing))
        worker, files = await ears.next()
        assert worker == "a"
        assert set(files) <= {made, "fresh/"}

    watch(tmp_path, scenario)


def test_a_link_that_is_set_to_another_folder_is_told(tmp_path: Path) -> None:
    for name in ("v1", "v2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.py").write_text(name)
    (tmp_path / "current").symlink_to("v1")

    async def scenario(_watcher: Watcher, ears: Ears) -> None:
        (tmp_path / "next").symlink_to("v2")
        (tmp_path / "next").replace(tmp_path / "current")
        assert await ears.next() == ("a", ("current/m.py",))

    watch(tmp_path, scenario, files=("current/m.py",))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    async def scenario(watcher: Watcher, ears: Ears) -> None:
        os.mkfifo(tmp_path / "pipe.py")
        (tmp_path / "a.py").unlink()
        os.mkfifo(tmp_path / "a.py")
        watcher.set_files("a", frozenset({str(tmp_path / "a.py"), str(tmp_path / "lib/b.py")}))
        (tmp_path / "lib/b.py").write_text("new")
        assert await ears.next() == ("a", ("lib/b.py",))

    watch(tmp_path, scenario, watch=("*.py",))


def test_an_atomic_rename_and_a_file_that_comes_back_are_told(tmp_path: Path) -> None:
    async def scenario(_watcher: Watcher, ears: Ears) -> None:
        for text in ("one", "two"):
            (tmp_path / "a.tmp").write_text(text)
            os.replace(tmp_path / "a.tmp", tmp_path / "a.py")
            assert await ears.next() == ("a", ("a.py",))
        (tmp_path / "a.py").unlink()
        (tmp_path / "a.py").write_text("three")
        assert await ears.next() == ("a", ("a.py",))

    watch(tmp_path, scenario)


def test_a_folder_that_is_replaced_is_watched_again(tmp_path: Path) -> None:
    async def scenario(_watcher: Watcher, ears: Ears) -> None:
        (tmp_path / "lib").rename(tmp_path / "away")
        (tmp_path / "lib").mkdir()
        (tmp_path / "lib/b.py").write_text("new")
        assert await ears.next() == ("a", ("lib/b.py",))
        (tmp_path / "lib/b.py").write_text("newer")
        assert await ears.next() == ("a", ("lib/b.py",))

    watch(tmp_path, scenario)


def test_the_target_of_a_symbolic_link_is_watched(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "real.py").write_text("old")
    project = tmp_path / "project"
    project.mkdir()
    (project / "link.py").symlink_to(elsewhere / "real.py")

    async def scenario(_watcher: Watcher, ears: Ears) -> None:
        (elsewhere / "real.py").write_text("new")
        assert await ears.next() == ("a", ("link.py",))

    watch(project, scenario, files=("link.py",))


def test_a_new_file_of_a_watch_glob_is_told_also_in_a_new_folder_but_not_an_ignored_one(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.tmp\n")
    (tmp_path / "templates").mkdir()

    async def scenario(_watcher: Watcher, ears: Ears) -> None:
        (tmp_path / "templates/x.tmp").write_text("1")
        (tmp_path / "templates/x.html").write_text("1")
        assert await ears.next() == ("a", ("templates/x.html",))

    watch(tmp_path, scenario, watch=("templates/**",))


def test_a_nested_gitignore_keeps_files_and_folders_below_it_from_being_watched(tmp_path: Path) -> None:
    (tmp_path / "assets/web/build/deep").mkdir(parents=True)
    (tmp_path / "assets/web/src").mkdir()
    (tmp_path / "assets/web/.gitignore").write_text("build/\n*.tmp\n")
    (tmp_path / "assets/.gitignore").write_text("*.css\n")

    async def scenario(watcher: Watcher, ears: Ears) -> None:
        assert not any("build" in folder for folder in watcher._folders)
        (tmp_path / "assets/web/src/x.tmp").write_text("1")
        (tmp_path / "assets/web/src/x.css").write_text("1")  # ignored above the folder where looking begins
        (tmp_path / "assets/web/src/x.js").write_text("1")
        assert await ears.next() == ("a", ("assets/web/src/x.js",))

    watch(tmp_path, scenario, watch=("assets/web/**",))


def test_a_watch_glob_may_lead_out_of_the_project(tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    (elsewhere / "folder").mkdir(parents=True)

    async def scenario(_watcher: Watcher, ears: Ears) -> None:
        (elsewhere / "x.json").write_text("1")
        assert await ears.next() == ("a", (str(elsewhere / "x.json"),))

    watch(project, scenario, watch=(f"{elsewhere}/*.json",))


def test_the_project_file_and_env_files_are_told_apart(tmp_path: Path) -> None:
    async def scenario(_watcher: Watcher, ears: Ears) -> None:
        (tmp_path / ".env").write_text("A=1")
        assert await ears.next() == ("", (".env",))

    watch(tmp_path, scenario)


def test_watch_false_turns_reload_off(tmp_path: Path) -> None:
    async def scenario(_watcher: Watcher, ears: Ears) -> None:
        (tmp_path / "a.py").write_text("new")
        (tmp_path / ".env").write_text("A=1")
        assert await ears.next() == ("", (".env",))

    watch(tmp_path, scenario, watch=None)


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError("inotify (os error 28)"), errno.ENOSPC),
        (ExceptionGroup("x", [RuntimeError("x (os error 24) about [..]")]), errno.EMFILE),
        (OSError('OS file watch limit reached. about ["/x"] (Error { kind: MaxFilesWatch })'), errno.ENOSPC),
        (RuntimeError("else"), 0),
    ],
)
def test_the_number_of_a_native_error_is_read_from_its_text(error: Exception, number: int) -> None:
    assert _number_of(error) == number


def test_an_exhausted_kernel_is_named_once_and_polling_takes_over(tmp_path: Path) -> None:
    async def scenario(watcher: Watcher, ears: Ears) -> None:
        watcher._on_watch_error(OSError("No space left on device (os error 28)"))
        watcher._on_watch_error(OSError("No space left on device (os error 28)"))
        watcher._rearm.set()
        await is_armed(tmp_path, ears)
        (tmp_path / "a.py").write_text("new and longer")
        assert await ears.next() == ("a", ("a.py",))

    (warning,) = watch(tmp_path, scenario).warnings
    assert module._EXHAUSTED[errno.ENOSPC] in warning
