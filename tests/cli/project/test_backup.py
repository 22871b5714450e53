"""`iii backup` and `iii restore`: a live project under load, a stopped one, and everything that is refused."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.support.live_project import BOUND, ROOT, Project, project

TOML = """
[engine]
listen = "off"
[workers.state]
[workers.stream.config]
port = 0
[workers.queue]
[workers.jobs]
run = "jobs.py"
"""
JOBS = """
import os
done = os.open("done", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
worker.register_function("jobs::note", lambda number: os.write(done, f"{number}\\n".encode()) and None)
"""
STATE_ONLY = '[engine]\nlisten = "off"\n[workers.state]\n'
# Later than the backup, so that the jobs are still there.
DELAY_MS = 8_000


def iii(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        check=False,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=BOUND,
    )


class Writer(Thread):
    """Writes to state, stream and queue until it is told to stop; notes what was acknowledged."""

    def __init__(self, running: Project) -> None:
        super().__init__()
        self.running = running
        self.acknowledged: list[int] = []
        self.enough, self.over = Event(), Event()

    def run(self) -> None:
        """Write one number after the other, each to all three."""
        number = 0
        with self.running.connect() as connection:
            while not self.over.is_set():
                number += 1
                text = "x" * 2000
                state = {"scope": "s", "key": f"k{number}", "value": [number, text]}
                item = {"stream_name": "s", "group_id": "g", "item_id": f"k{number}", "data": number}
                action = {"type": "enqueue", "queue": "default", "delay_ms": DELAY_MS}
                answers = [
                    connection.request("state::set", state, 20_000),
                    connection.request("stream::set", item, 20_000),
                    connection.request("jobs::note", number, 20_000, action=action),
                ]
                assert not [answer for answer in answers if "error" in answer], answers
                self.acknowledged.append(number)
                if len(self.acknowledged) >= 150:
                    self.enough.set()


def test_a_live_project_under_load_is_backed_up_wiped_and_restored_with_every_acknowledged_write(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    file = tmp_path / "backup.zip"
    with project(folder, TOML, {"jobs": JOBS}) as running:
        writer = Writer(running)
        writer.start()
        assert writer.enough.wait(BOUND)
        acknowledged = list(writer.acknowledged)
        made = iii(folder, "backup", str(file))
        writer.over.set()
        writer.join()
        assert made.returncode == 0, made.stderr
        assert made.stdout.startswith(f"{file}: 3 stores (queue.db ")
        running.stop()
        shutil.rmtree(folder / ".iii")
        restored = iii(folder, "restore", str(file))
        assert restored.returncode == 0, restored.stderr
        running.start()
        keys = set(running.call("state::list_keys", {"scope": "s"})["keys"])
        items = set(running.call("stream::list", {"stream_name": "s", "group_id": "g"}))
        assert {f"k{number}" for number in acknowledged} <= keys
        assert set(acknowledged) <= items
        running.call("state::set", {"scope": "s", "key": "after", "value": 1})
        seen = wait_for_jobs(folder / "done", set(acknowledged))
        assert set(acknowledged) <= seen


def wait_for_jobs(path: Path, wanted: set[int]) -> set[int]:
    """Return the jobs that have run, once all that are wanted have, or no more come in time."""
    pause = Event()
    for _ in range(int(BOUND * 5)):
        seen = {int(line) for line in path.read_text().split()} if path.exists() else set()
        if wanted <= seen:
            break
        pause.wait(0.2)  # between two looks
    return seen


def stored(tmp_path: Path, value: int) -> Path:
    """Return a stopped project with one value in its state, and a backup `VALUE.zip` of it beside it."""
    folder = tmp_path / "project"
    folder.mkdir(exist_ok=True)
    with project(folder, STATE_ONLY, {}) as running:
        running.call("state::set", {"scope": "s", "key": "k", "value": value})
    assert iii(folder, "backup", f"../{value}.zip").returncode == 0
    return folder


def read(folder: Path) -> Any:
    with project(folder, STATE_ONLY, {}) as running:
        return running.call("state::get", {"scope": "s", "key": "k"})


def test_a_stopped_project_is_backed_up_and_restored_and_the_old_data_is_kept_aside(tmp_path: Path) -> None:
    folder = stored(tmp_path, 1)
    stored(tmp_path, 2)
    done = iii(folder, "restore", "../1.zip", "--json")
    assert done.returncode == 0, done.stderr
    assert [store["name"] for store in json.loads(done.stdout)["stores"]] == ["state.db"]
    assert read(folder) == 1
    aside = sqlite3.connect(folder / ".iii" / "state.db.before-restore")
    assert aside.execute("SELECT value FROM entry").fetchone() == (b"2",)
    aside.close()
    assert iii(folder, "restore", "../2.zip").returncode == 0
    assert read(folder) == 2
    assert sorted(path.name for path in (folder / ".iii").glob("state.db*")) == [
        *("state.db", "state.db.before-restore", "state.db.lock")
    ]


WRITE_AND_DIE = """
import os, sys
from pathlib import Path
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store
SqliteKeyValue(Store(Path(sys.argv[1]), KEY_VALUE_SCHEMA)).put("s", "k", b"7").result()
os._exit(9)
"""


def test_a_project_whose_worker_died_is_backed_up_with_its_log(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "iii.toml").write_text(STATE_ONLY)
    subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(folder / ".iii" / "state.db")], check=False)
    assert (folder / ".iii" / "state.db-wal").stat().st_size > 0
    assert iii(folder, "backup", "../killed.zip").returncode == 0
    shutil.rmtree(folder / ".iii")
    assert iii(folder, "restore", "../killed.zip").returncode == 0
    assert read(folder) == 7


def test_nothing_is_overwritten_or_restored_by_mistake(tmp_path: Path) -> None:
    folder = stored(tmp_path, 1)
    again = iii(folder, "backup", "../1.zip")
    assert again.returncode == 2
    assert "1.zip is there already" in again.stderr
    assert "--force" in again.stderr
    assert iii(folder, "backup", "../1.zip", "--force").returncode == 0
    nowhere = iii(folder, "backup", "../missing/1.zip")
    assert (nowhere.returncode, "missing is not there" in nowhere.stderr) == (2, True)
    with project(folder, STATE_ONLY, {}):
        running = iii(folder, "restore", "../1.zip")
        assert running.returncode == 2
        assert "the project is running (process " in running.stderr
        assert "iii stop" in running.stderr
    assert list(tmp_path.glob(".*.part")) == []
    assert list((folder / ".iii").glob("*.copy")) == []


def damaged_database(path: Path) -> None:
    rewrite(path, "state.db", lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])


def other_format(path: Path) -> None:
    rewrite(path, "manifest.json", lambda data: data.replace(b'"format": 1', b'"format": 99'))


def foreign_name(path: Path) -> None:
    rewrite(path, "manifest.json", lambda data: data.replace(b"state.db", b"../state.db"))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def rewrite(path: Path, name: str, change: Any) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    members[name] = change(members[name])
    with zipfile.ZipFile(path, "w") as archive:
        for each, data in members.items():
            archive.writestr(each, data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damaged_database, "state.db in the backup is damaged"),
        (other_format, "restore it with that version"),
        (foreign_name, "which is no store"),
        (cut_off, "is not a backup of iii"),
        (Path.unlink, "is not a backup of iii: "),
    ],
)
def test_a_backup_that_cannot_be_trusted_changes_nothing(tmp_path: Path, damage: Any, message: str) -> None:
    folder = stored(tmp_path, 1)
    before = (folder / ".iii" / "state.db").read_bytes()
    damage(tmp_path / "1.zip")
    done = iii(folder, "restore", "../1.zip")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / ".iii" / "state.db").read_bytes() == before
    assert list((folder / ".iii").glob("*.restored")) == []
