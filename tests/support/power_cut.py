"""A disk that forgets: the files of a process as a power cut would leave them, rebuilt from its system calls.

What has been synced stays; of what was written since, a cut may leave nothing, everything with the last write torn, or
any part. Reads the output of strace; knows nothing of what is in the files.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

# What to ask strace for: all of every buffer, in hex, with the path behind each descriptor.
STRACE = ("strace", "-f", "-y", "-xx", "-s", "1000000", "-e", "trace=openat,pwrite64,ftruncate,fdatasync,fsync,write")
_CALL = re.compile(r"^\d+ +(?P<name>\w+)\((?P<rest>.*)$")
_RESUMED = re.compile(r"^(?P<pid>\d+) +<\.\.\. (?P<name>f(?:data)?sync) resumed>.*= 0$")
_FILE = re.compile(r"^\d+<(?P<path>[^>]*)>(?:\(deleted\))?(?P<rest>.*)$")
# The smallest piece that a disk writes whole.
SECTOR = 512


class Write(NamedTuple):
    """Bytes that a call has put into a file; `cut` says where the file ends instead (a truncation)."""

    path: str
    offset: int = 0
    data: bytes = b""
    cut: int | None = None


class Sync(NamedTuple):
    """A sync of a file that has returned."""

    path: str


class Said(NamedTuple):
    """What the process has told the world by then."""

    text: str


Event = Write | Sync | Said


def events_from(trace: str) -> Iterator[Event]:
    """Return what matters of an strace, in its order. A sync counts when it returns, everything else when it begins."""
    syncing: dict[str, str] = {}
    for line in trace.splitlines():
        resumed = _RESUMED.match(line)
        if resumed:
            yield Sync(syncing.pop(resumed["pid"]))
            continue
        call = _CALL.match(line)
        target = _FILE.match(call["rest"]) if call else None
        if call is None or target is None:
            continue
        path = _unhex(target["path"]).decode()
        if call["name"] in ("fsync", "fdatasync"):
            if line.endswith("<unfinished ...>"):
                syncing[line.split()[0]] = path
            elif line.endswith("= 0"):
                yield Sync(path)
        else:
            yield from _writes(call["name"], path, target["rest"])


def _writes(name: str, path: str, rest: str) -> Iterator[Event]:
    if name == "ftruncate":
        yield Write(path, cut=int(rest.lstrip(", ").split(")")[0].split()[0]))
    elif name in ("pwrite64", "write"):
        _, text, tail = rest.split('"', 2)
        data = _unhex(text)
        if name == "write":
            yield Said(data.decode(errors="replace"))
        else:
            yield Write(path, int(re.findall(r"\d+", tail)[1]), data)


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()


@dataclass
class Disk:
    """Files by path: what a cut cannot take away, and what has been written since."""

    synced: dict[str, bytes] = field(default_factory=dict)
    loose: list[Write] = field(default_factory=list)

    def take(self, event: Write | Sync) -> None:
        """Let a call happen."""
        if isinstance(event, Write):
            self.synced.setdefault(event.path, b"")
            self.loose.append(event)
            return
        for write in self.loose:
            if write.path == event.path:
                _apply(self.synced, write)
        self.loose = [write for write in self.loose if write.path != event.path]

    def cuts(self, dice: random.Random) -> Iterator[dict[str, bytes]]:
        """Return the files as a cut at this moment may leave them."""
        yield dict(self.synced)
        if self.loose:
            last = self.loose[-1]
            torn = last._replace(data=last.data[: dice.randrange(0, len(last.data) + 1, SECTOR)])
            yield _after(self.synced, [*self.loose[:-1], torn])
            yield _after(self.synced, [write for write in self.loose if dice.random() < 0.5])


def _after(files: dict[str, bytes], writes: list[Write]) -> dict[str, bytes]:
    changed = dict(files)
    for write in writes:
        _apply(changed, write)
    return changed


def _apply(files: dict[str, bytes], write: Write) -> None:
    content = files.get(write.path, b"")
    if write.cut is not None:
        files[write.path] = content[: write.cut].ljust(write.cut, b"\0")
        return
    head = content[: write.offset].ljust(write.offset, b"\0")
    files[write.path] = head + write.data + content[write.offset + len(write.data) :]


def rebuild(files: dict[str, bytes], folder: Path, name: str) -> Path:
    """Put the files of the database `name` into `folder`; the shared index is memory and never survives."""
    for suffix in ("", "-wal", "-shm"):
        (folder / f"{name}{suffix}").unlink(missing_ok=True)
    for path, content in files.items():
        if Path(path).name in (name, f"{name}-wal"):
            (folder / Path(path).name).write_bytes(content)
    return folder / name
