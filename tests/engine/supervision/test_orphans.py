"""Processes that a dead worker has left behind: found also by an engine that was out of descriptors for a while."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from iii.engine.supervision import orphans, procfs
from iii.engine.supervision.orphans import OrphanCleanup
from iii.engine.supervision.procfs import Entry

NO_DESCRIPTOR = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
MARK = "III_RUN_ID", "orphan-of-this-test"
# Opens what it may, and then looks: every time one file fewer is open.
EXHAUSTED = """
import os, resource
from iii.engine.supervision import procfs
everybody = len(procfs.entries())
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
opened = []
try:
    while True:
        opened.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for look in (procfs.entries, lambda: procfs.read_entry(os.getpid())):
    try:
        print("found", look())
    except OSError as error:
        print(error.strerror)
os.close(opened.pop())
print(abs(len(procfs.entries()) - everybody) < everybody, procfs.read_entry(2**22 + 1))
"""


def test_that_nothing_can_be_read_is_not_that_nobody_is_there() -> None:
    done = subprocess.run([sys.executable, "-c", EXHAUSTED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["Too many open files"] * 2 + ["True None"]


def leader() -> Any:
    return SimpleNamespace(pid=2**22 + 1, tag=0)


def test_leftovers_are_ended_once_a_descriptor_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "DESCRIPTOR_INTERVAL", 0.01)
    readings = 0

    def read() -> list[Entry]:
        nonlocal readings
        readings += 1
        if readings < 4:
            raise NO_DESCRIPTOR
        return procfs.entries()

    child = subprocess.Popen(["sleep", "600"], env={**os.environ, MARK[0]: MARK[1]}, start_new_session=True)
    try:

        async def clear() -> tuple[int, ...]:
            return await OrphanCleanup(read).clear(leader(), procfs.marks_of([MARK]))

        assert asyncio.run(clear()) == ()
        assert child.wait(10) == -9
    finally:
        child.kill()
        child.wait()
    assert readings >= 4


def test_that_nobody_could_look_is_told_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "DESCRIPTOR_TIMEOUT", 0.05)
    monkeypatch.setattr(orphans, "DESCRIPTOR_INTERVAL", 0.01)

    def read() -> list[Entry]:
        raise NO_DESCRIPTOR

    with pytest.raises(OSError, match="Too many open files"):
        asyncio.run(OrphanCleanup(read).clear(leader(), procfs.marks_of([MARK])))
