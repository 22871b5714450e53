"""Static folders: Starlette's files below a root, with the rules of what is one of them.

The path arrives decoded, once. A file whose link leads out of its root is not there, nor is one whose name begins with
a dot, but for `.well-known` (RFC 8615).
"""

from __future__ import annotations

import re
import stat
from mimetypes import guess_type
from pathlib import Path

import anyio.to_thread
from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.staticfiles import NotModifiedResponse, StaticFiles

from stdlib_workers.http.replies import Reply
from stdlib_workers.http.requests import Request

INDEX = "index.html"
# One range, as resumed downloads and players ask for it; whoever asks for anything else gets the whole file.
_RANGE = re.compile(r"bytes=(\d{1,18}-\d{0,18}|-\d{1,18})\Z")


class StaticFolder:
    """Answers the paths below `prefix` from the files below `root`."""

    def __init__(self, prefix: str, root: Path) -> None:
        self._prefix = [part for part in prefix.split("/") if part]
        self._files = StaticFiles(directory=root, check_dir=False)

    async def answer(self, request: Request, path: list[str]) -> Reply | None:
        """Return the file, a part of it or that the client has it already; None where there is none."""
        count = len(self._prefix)
        parts = path[count:]
        if not parts or parts[-1] == "":
            parts = [*parts[:-1], INDEX]
        if path[:count] != self._prefix or any(map(_is_hidden, parts)):
            return None
        try:
            found, facts = await anyio.to_thread.run_sync(self._files.lookup_path, "/".join(parts))
        except (OSError, ValueError):
            return None
        if facts is None or not stat.S_ISREG(facts.st_mode):
            return None
        headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
        response = FileResponse(found, headers=headers, media_type=_media_type(parts[-1]), stat_result=facts)
        asked = Headers(scope=request.scope)
        if self._files.is_not_modified(response.headers, asked):
            return Reply(304, NotModifiedResponse(response.headers).raw_headers)
        if not _RANGE.match(asked.get("range", "")) or _is_backward(asked["range"]):
            kept = [header for header in request.raw_headers if header[0] != b"range"]
            request.scope = {**request.scope, "headers": kept}
        return Reply(response=response)


def _is_hidden(part: str) -> bool:
    hidden = part.startswith(".") and part != ".well-known"
    return not part or hidden or any(letter in part for letter in "/\\\0")


def _is_backward(asked: str) -> bool:
    first, _, last = asked.removeprefix("bytes=").partition("-")
    return bool(first and last) and int(last) < int(first)


def _media_type(path: str) -> str:
    kind, coding = guess_type(path)
    return "application/octet-stream" if kind is None or coding is not None else kind
