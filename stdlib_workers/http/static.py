"""Static folders: files below a root and nothing else, with ETag, ranges and conditional answers.

The path arrives decoded, once. A file is opened first and judged by where it really is: a symlink that leads out of
its root is not there. Reading happens on a thread; the loop never waits for a disk.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from dataclasses import dataclass
from email.utils import formatdate
from mimetypes import guess_type
from pathlib import Path

from stdlib_workers.http.replies import Headers, Reply
from stdlib_workers.http.requests import Request

INDEX = "index.html"
# A file is one buffered answer; what is larger belongs to a server made for it.
MAX_FILE = 64 << 20
_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")


@dataclass(frozen=True, slots=True)
class File:
    """An open file's facts and what was read of it."""

    path: Path
    size: int
    modified: float
    content: bytes

    @property
    def etag(self) -> str:
        """A strong validator: a changed file has another one."""
        return f'"{int(self.modified * 1e6):x}-{self.size:x}"'


class StaticFolder:
    """Answers the paths below `prefix` from the files below `root`."""

    def __init__(self, prefix: str, root: Path) -> None:
        self._prefix = [part for part in prefix.split("/") if part]
        self._root = Path(os.path.realpath(root))

    async def answer(self, request: Request, path: list[str]) -> Reply | None:
        """Return the file, or None where there is none."""
        count = len(self._prefix)
        if path[:count] != self._prefix:
            return None
        file = await asyncio.to_thread(find_file, self._root, path[count:])
        return None if file is None else reply_with(file, request)


def find_file(root: Path, parts: list[str]) -> File | None:
    """Return the file at `parts` below `root`; of a folder its index. None when there is none, or it is elsewhere."""
    if parts and parts[-1] == "":
        parts = [*parts[:-1], INDEX]
    if any(not part or part.startswith(".") or "/" in part or "\\" in part or "\0" in part for part in parts):
        return None
    path = root.joinpath(*parts) if parts else root / INDEX
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_FILE or not _is_below(root, path, facts):
            return None
        with os.fdopen(fd, "rb", closefd=False) as opened:
            return File(path, facts.st_size, facts.st_mtime, opened.read(facts.st_size))
    finally:
        os.close(fd)


def _is_below(root: Path, path: Path, facts: os.stat_result) -> bool:
    """Whether the open file is the one that really lies at `path`, and that is below the root."""
    real = os.path.realpath(path)
    if not real.startswith(f"{root}{os.sep}"):
        return False
    try:
        there = os.stat(real, follow_symlinks=False)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (facts.st_dev, facts.st_ino)


def reply_with(file: File, request: Request) -> Reply:
    """Return the file, the part of it that was asked for, or that the client has it already."""
    headers = _headers(file)
    if _is_known(file, request):
        return Reply(304, headers)
    asked = request.headers.get("range")
    condition = request.headers.get("if-range", file.etag)
    span = _span(asked, file.size) if asked and condition == file.etag else None
    if span is None:
        return Reply(200, headers, file.content)
    start, end = span
    if start >= end:
        return Reply(416, [*headers, (b"content-range", b"bytes */%d" % file.size)])
    content_range = b"bytes %d-%d/%d" % (start, end - 1, file.size)
    return Reply(206, [*headers, (b"content-range", content_range)], file.content[start:end])


def _headers(file: File) -> Headers:
    kind, coding = guess_type(file.path.name)
    if kind is None or coding is not None:
        kind = "application/octet-stream"
    if kind.startswith("text/"):
        kind += "; charset=utf-8"
    return [
        (b"content-type", kind.encode()),
        (b"etag", file.etag.encode()),
        (b"last-modified", formatdate(file.modified, usegmt=True).encode()),
        (b"cache-control", b"no-cache"),
        (b"accept-ranges", b"bytes"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _is_known(file: File, request: Request) -> bool:
    known = request.headers.get("if-none-match")
    if known is not None:
        return known == "*" or file.etag in (tag.strip().removeprefix("W/") for tag in known.split(","))
    return request.headers.get("if-modified-since") == formatdate(file.modified, usegmt=True)


def _span(asked: str, size: int) -> tuple[int, int] | None:
    """Return the bytes [start, end) of a single range, empty if it has none of them; None for what we do not serve."""
    found = _RANGE.match(asked)
    if found is None or found.groups() == ("", "") or max(map(len, found.groups())) > 18:
        return None
    first, last = found.groups()
    if not first:
        return (max(0, size - int(last)), size) if int(last) else (size, size)
    end = size if not last else min(size, int(last) + 1)
    return None if last and int(last) < int(first) else (int(first), end)
