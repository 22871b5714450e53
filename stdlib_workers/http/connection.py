"""One client's connection: uvicorn's protocol on httptools, with the limits that it does not have.

Refuses what is too large, too slow or cannot be read in one way only, before the application sees anything of it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from stdlib_workers.http.failures import Refusal
from stdlib_workers.http.stalling import StallLimit

HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
MAX_TARGET = 8 << 10
MAX_HEADERS = 32 << 10
MAX_HEADER_COUNT = 100
# How long what a refused client still sends is thrown away: closing at once would reset its connection, and the
# answer with it.
LINGER_SECONDS = 2.0
_ONCE_ONLY = frozenset({b"content-length", b"transfer-encoding", b"host", b"content-type", b"authorization"})


class JoinedWrites:
    """A transport whose response heads wait for the write that follows at once: one system call, one packet."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Write, or keep a final response's head."""
        if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
        else:
            self._transport.write(self._head + data)
            self._head = b""

    def flush(self) -> None:
        """Write a head that nothing follows."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Close behind what has been written."""
        self.flush()
        self._transport.close()


class LimitedConnection(StallLimit, HttpToolsProtocol):
    """A connection that is refused rather than trusted. `expire` is called about once a second."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin the time within which the first head has to come."""
        super().connection_made(transport)
        self._writes: Any = JoinedWrites(transport)
        self._head_since: float | None = self.loop.time()
        self._body_since = 0.0
        self._head_bytes = 0
        self._header_bytes = 0
        self._is_lost = False
        self._refusal: Refusal | None = None

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and bound what is still incomplete."""
        if self._is_lost:
            return
        super().data_received(data)
        if self._head_since is not None and not self._is_lost:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_TARGET + MAX_HEADERS:
                self._refuse(Refusal(431, "HEADERS_TOO_LARGE", f"the headers are over {MAX_HEADERS} bytes"))

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._head_since = self.loop.time()
        self._head_bytes = self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Bound the target."""
        if len(self.url) + len(url) > MAX_TARGET:
            self._stop(Refusal(414, "URI_TOO_LONG", f"the URL is over {MAX_TARGET} bytes"))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Bound the headers and refuse a second one where there can be one only."""
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADERS or len(self.headers) > MAX_HEADER_COUNT:
            text = f"the headers are over {MAX_HEADERS} bytes or {MAX_HEADER_COUNT} fields"
            self._stop(Refusal(431, "HEADERS_TOO_LARGE", text))

    def on_headers_complete(self) -> None:
        """Check the head as a whole and hand the request on."""
        self._head_since = None
        self._body_since = self.loop.time()
        refusal = self._check_head()
        if refusal is not None:
            self._stop(refusal)
        super().on_headers_complete()
        if self.parser.should_upgrade() and not self._should_upgrade():
            # What follows would be read by another protocol, which this server has not switched to.
            self.cycle.keep_alive = False

    def _check_head(self) -> Refusal | None:
        names = [name for name, _ in self.headers if name in _ONCE_ONLY]
        if len(set(names)) != len(names):
            return Refusal(400, "BAD_REQUEST", "a header that can be there once is there twice")
        if any(name == b"transfer-encoding" and value.lower() != b"chunked" for name, value in self.headers):
            return Refusal(400, "BAD_REQUEST", "the only transfer-encoding is chunked")
        if not self.url.startswith(b"/") and self.url != b"*":
            return Refusal(400, "BAD_REQUEST", "the request target must be a path")
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            return Refusal(505, "HTTP_VERSION_NOT_SUPPORTED", "this server speaks HTTP/1.1")
        return None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.transport = self._writes
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Read no further after an answer that did not wait for the whole body, and say what was wrong after it."""
        self._writes.flush()
        if self.transport.is_closing():
            return
        if self._refusal is not None:
            self._send_refusal(self._refusal)
        elif self.cycle.more_body and self.cycle.response_complete:
            self._linger()
        else:
            super().on_response_complete()

    def expire(self, now: float) -> None:
        """Refuse a head or a body that has taken too long; cut off who does not take the answer."""
        super().expire(now)
        if self._is_lost:
            return
        if self._head_since is not None:
            if now - self._head_since > HEAD_SECONDS:
                self._refuse(Refusal(408, "REQUEST_TIMEOUT", f"the headers took more than {HEAD_SECONDS:g} s"))
        elif self._is_reading_body and now - self._body_since > BODY_SECONDS:
            self._refuse(Refusal(408, "REQUEST_TIMEOUT", f"the body took more than {BODY_SECONDS:g} s"))

    @property
    def _is_reading_body(self) -> bool:
        cycle = self.cycle
        return cycle is not None and cycle.more_body and not cycle.response_started

    def send_400_response(self, msg: str) -> None:
        """Answer what could not be parsed."""
        self._refuse(self._refusal or Refusal(400, "BAD_REQUEST", msg))

    def _stop(self, refusal: Refusal) -> None:
        """End the parsing; `send_400_response` answers."""
        self._refusal = refusal
        raise httptools.HttpParserError(refusal.message)

    def _refuse(self, refusal: Refusal) -> None:
        self._is_lost = True
        self._refusal = refusal
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._send_refusal(refusal)
        elif self._is_reading_body and not self.pipeline:
            # The body of the request that is being read is what cannot be read: its application waits in vain.
            cycle.disconnected = True
            cycle.message_event.set()
            self._send_refusal(refusal)
        # Else the answer to an earlier request is on its way, and this one follows it.

    def _send_refusal(self, refusal: Refusal) -> None:
        body = orjson.dumps({"error": {"code": refusal.code, "message": refusal.message}})
        headers: list[tuple[bytes, Any]] = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%s: %s\r\n" % pair for pair in headers)
        self.transport.write(STATUS_LINE[refusal.status] + lines + b"\r\n" + body)
        self._linger()

    def _linger(self) -> None:
        self._is_lost = True
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def eof_received(self) -> None:
        """Close with the client."""
