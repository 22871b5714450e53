"""Static folders: Starlette's files below a root, with the rules of what is one of them.

The path arrives decoded, once. A file whose link leads out of its root is not there, nor is one whose name begins with
a dot, but for `.well-known` (RFC 8615).
"""

from __future__ import annotations

import re
from mimetypes import guess_type
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from stdlib_workers.http.requests import Request

INDEX = "index.html"
# One range, as resumed downloads and players ask for it; whoever asks for anything else gets the whole file.
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")


class StaticFolder:
    """Answers the paths below `prefix` from the files below `root`."""

    def __init__(self, prefix: str, root: Path) -> None:
        self._prefix = [part for part in prefix.split("/") if part]
        self._files = StaticFiles(directory=root, check_dir=False)

    async def __call__(self, request: Request, path: list[str]) -> Response | None:
        """Return the file, a part of it or that the client has it already; None where there is none."""
        count = len(self._prefix)
        parts = path[count:] or [""]
        parts[-1] = parts[-1] or INDEX
        if path[:count] != self._prefix or any(map(_is_hidden, parts)):
            return None
        first, last = found.groups() if (found := _RANGE.match(request.headers.get("range", ""))) else ("", "")
        if not (first or last) or (first and last and int(last) < int(first)):
            headers = [header for header in request.raw_headers if header[0] != b"range"]
            request.scope = {**request.scope, "headers": headers}
        try:
            response = await self._files.get_response("/".join(parts), {**request.scope, "method": "GET"})
        except (HTTPException, OSError):
            return None
        response.headers.update({"cache-control": "no-cache", "x-content-type-options": "nosniff"})
        if response.status_code == 200 and guess_type(parts[-1])[1] is not None:
            response.headers["content-type"] = "application/octet-stream"  # it is packed, and stays so
        return response


def _is_hidden(part: str) -> bool:
    hidden = part.startswith(".") and part != ".well-known"
    return not part or hidden or any(letter in part for letter in "/\\\0")
