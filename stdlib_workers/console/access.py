"""Who gets in: pages of this very address, with the cookie that a one-time key was exchanged for.

The decision about a request is pure. Sessions are files whose names are digests, so that a page goes on with the next
process of this worker and with the next engine, and the disk holds nothing that opens a session.
"""

from __future__ import annotations

import secrets
import time
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

from iii.one_time_keys import digest_of, forget_oldest, private_folder
from stdlib_workers.loopback.requests import refusal

# Where everything is that needs a session; the cookie is sent nowhere else.
API = "/_console"
# Browsers that are logged in; the one that has not been seen for the longest goes.
MAX_SESSIONS = 16
LIFETIME = 7 * 24 * 3600.0  # seconds without a request


def refusal_of_request(
    method: str, path: str, fields: dict[str, list[str]], hosts: frozenset[str]
) -> tuple[int, str] | None:
    """Return status and text for a request that may not go on, whoever sends it; None for one that may.

    The files of the page are for everybody who has the right Host. What stands below API is only for pages that were
    loaded from the same Host: a browser says so, in `Origin` of what changes something and in `Sec-Fetch-Site`.
    """
    if (refused := refusal(fields, hosts)) is not None:
        return refused
    if not path.startswith(f"{API}/"):
        return None if method in ("GET", "HEAD") else (405, "this is a page: only GET is served")
    own = f"http://{fields['host'][0]}".lower()
    origins = [origin.lower() for origin in fields.get("origin", [])]
    if method != "GET" and origins != [own]:
        return 403, "only the console's own page may ask this: its Origin is missing, or another"
    if any(origin != own for origin in origins):
        return 403, "pages of this origin may not ask this"
    if fields.get("sec-fetch-site", ["same-origin"]) != ["same-origin"]:
        return 403, "only the console's own page may ask this"
    return None


class Sessions:
    """The logged-in browsers, in `.iii/console/sessions`.

    `port` is in the name of the cookie: cookies know no ports, and another project's console has another one.
    """

    def __init__(self, state_dir: Path, port: int) -> None:
        self._folder = private_folder(state_dir, "console", "sessions")
        self.cookie = f"iii_console_{port}"

    def begin(self) -> str:
        """Return the value of `Set-Cookie` for a new session."""
        token = secrets.token_urlsafe(32)
        (self._folder / digest_of(token)).touch(mode=0o600)
        forget_oldest(self._folder, MAX_SESSIONS)
        return f"{self.cookie}={token}; Path={API}; Max-Age={int(LIFETIME)}; HttpOnly; SameSite=Strict"

    def is_open(self, cookie_header: str) -> bool:
        """Whether the header has the cookie of a session; the session lives on from now."""
        try:
            morsel = SimpleCookie(cookie_header).get(self.cookie)
        except CookieError:
            return False
        if morsel is None:
            return False
        file = self._folder / digest_of(morsel.value)
        try:
            age = time.time() - file.stat().st_mtime
            if age > LIFETIME:
                file.unlink()
                return False
            if age > 60:
                file.touch()
        except OSError:
            return False
        return True
