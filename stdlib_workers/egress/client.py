"""The client of everything that goes out over HTTP: guarded, with a deadline, bounded in bytes and in number.

One deadline covers all of a request, from waiting for a free slot to the last byte of the answer: a server cannot hold
a slot by sending byte after byte. No redirect is followed. For one event loop.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from weakref import WeakValueDictionary

import httpcore
import httpx

from stdlib_workers.egress.rules import EgressDenied, Rules
from stdlib_workers.egress.transport import GuardedTransport, Resolve, judged_addresses, resolve
from stdlib_workers.values.gunzip import Gunzip

# Bytes of an answer's body, decompressed.
MAX_BODY = 10 * 1024 * 1024
# Requests under way, each with a body in memory: of all, and to one host, so that a slow one leaves slots to others.
MAX_IN_FLIGHT = 64
MAX_PER_HOST = 32
_FAILURES = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError)


class RequestFailed(Exception):
    """There was no response: no connection, no TLS, no answer in time."""


class ResponseFailed(Exception):
    """The response began and could not be read to its end."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to send. `timeout` in seconds, from the wait for a free slot to the end of the response."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    timeout: float


@dataclass(frozen=True, slots=True)
class Response:
    """Status and body of the response; informational ones before it are skipped."""

    status: int
    body: bytes


class Client:
    """Sends requests where the rules allow them.

    For example `await Client(Rules()).send(Request("POST", "https://example.com/hook", (), b"{}", 10.0))`.
    """

    def __init__(
        self, rules: Rules, *, ask: Resolve = resolve, dial: httpcore.AsyncNetworkBackend | None = None
    ) -> None:
        self._rules = rules
        self._ask = ask
        self._transport = GuardedTransport(rules, ask=ask, dial=dial)
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        # The slots of a host, as long as a request to it is under way.
        self._host_slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def check(self, url: str) -> None:
        """Raise `EgressDenied` if `send` would raise it now."""
        target = self._rules.target_of(url)
        await judged_addresses(target.host, target.port, self._rules, self._ask)

    async def send(self, request: Request) -> Response:
        """Send the request and return the response. Raises EgressDenied, RequestFailed or ResponseFailed."""
        target = self._rules.target_of(request.url)
        message = _message_of(request, target.authority)
        failed: type[Exception] = RequestFailed
        host_slots = self._host_slots.setdefault(target.host, asyncio.Semaphore(MAX_PER_HOST))
        try:
            async with asyncio.timeout(request.timeout), host_slots, self._slots:
                response = await self._transport.handle_async_request(message)
                failed = ResponseFailed
                try:
                    return Response(response.status_code, await _body_of(response))
                finally:
                    await response.aclose()
        except TimeoutError:
            raise failed(f"{target.authority}: timed out after {request.timeout:g} s") from None
        except OverflowError:
            raise failed(f"{target.authority}: the answer is larger than {MAX_BODY} bytes") from None
        except ValueError as error:
            raise failed(f"{target.authority}: {error}") from None
        except _FAILURES as error:
            what = "the answer broke off" if failed is ResponseFailed else "no answer"
            raise failed(f"{target.authority}: {what}: {error or type(error).__name__}") from None


def _message_of(request: Request, authority: str) -> httpx.Request:
    own = (("Host", authority), ("Accept-Encoding", "gzip"), ("Connection", "close"))
    headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in (*own, *request.headers)]
    try:
        return httpx.Request(request.method, request.url, headers=headers, content=request.body)
    except httpx.InvalidURL as error:
        raise EgressDenied("url", f"invalid URL: {error}") from None


async def _body_of(response: httpx.Response) -> bytes:
    """Return the body. ValueError when it cannot be decoded, OverflowError when it is too large."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip", "x-gzip", ""):
        raise ValueError(f"content-encoding {coding[:40]!r} was not asked for")
    gunzip = Gunzip(MAX_BODY) if "gzip" in coding else None
    parts, room = [], MAX_BODY
    async for part in response.aiter_raw():
        parts.append(part if gunzip is None else gunzip.feed(part))
        room -= len(parts[-1])
        if room < 0:
            raise OverflowError
    if gunzip is not None:
        gunzip.close()
    return b"".join(parts)
