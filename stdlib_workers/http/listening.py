"""Serves a listening socket with uvicorn; bounds of size, time and number for the connections of its clients.

A connection stands between its transport and the protocol that uvicorn would have there, and speaks asyncio's protocol
interface to both. It hands over one request at a time, whole heads only; what no parser reads in one way is left to
uvicorn's to refuse. The application tells it (through the scope's `state`) how far a request has come.
"""

from __future__ import annotations

import asyncio
import logging
import re
import resource
import socket
import struct
from contextlib import suppress
from functools import partial
from typing import Any

import uvicorn

from stdlib_workers.http.replies import RETRY_AFTER, Refusal
from stdlib_workers.http.requests import LINGER_SECONDS
from stdlib_workers.values.serving import uvicorn_config

HEAD_SECONDS = 10.0
MAX_TARGET = 8 << 10
MAX_HEADERS = 32 << 10
# Requests that wait for the answer to the one before; what comes beyond stays in the kernel.
MAX_WAITING = 64 << 10
# Bytes of a body that the parser has and the application has not: uvicorn stops reading long before, unless they are
# fields behind the chunks.
MAX_UNREAD = 1 << 20
# How long a client may accept no byte of an answer that waits for it.
STALL_SECONDS = 30.0
# Fragments of one WebSocket message, as at the engine's own listener.
MAX_FRAGMENTS = 4096
# Refused clients of which what they still send is thrown away.
MAX_LINGERING = 64

TICK_SECONDS = 1.0
# Each costs a descriptor and some memory; the process has at least half of its descriptors for everything else.
MAX_CONNECTIONS = 4096
# How long a connection that is idle when the end comes may still send its next request.
IDLE_GRACE_SECONDS = 0.2
KEEP_ALIVE_SECONDS = 65
# One WebSocket message, as at the engine's own listener.
MAX_MESSAGE = 4 << 20
# A WebSocket whose client answers no ping is gone after twice this.
PING_SECONDS = 20.0

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n")
_UPGRADE = re.compile(rb"\r\n(?i:upgrade|http2-settings):[^\r\n]*")
_WEBSOCKET = re.compile(rb"\r\nupgrade:[ \t]*websocket[ \t]*\r\n")
_ABSOLUTE = re.compile(rb"([A-Z]+) (?i:https?)://([^/?# ]+)/?([^ ]*) (HTTP/1\.[01])\r\n")
_HOST = re.compile(rb"\r\n(?i:host):[^\r\n]*")
# A fragment that says to be longer than any message may: uvicorn's protocol refuses it with 1009, as its own limit.
_OVERSIZED = b"\x80\xff" + (1 << 40).to_bytes(8, "big") + bytes(4)


class Connection(asyncio.Protocol):
    """What both kinds share: writing that stalls, and the end. `inner` is uvicorn's, none before the first request."""

    transport: asyncio.Transport
    inner: Any = asyncio.Protocol()
    stalled_since: float | None = None

    def __init__(self, listening: Listening) -> None:
        self.listening = listening
        self.loop = asyncio.get_running_loop()

    def pause_writing(self) -> None:
        """Note since when the client has not read."""
        self.stalled_since = self.loop.time()
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self.stalled_since = None
        self.inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell uvicorn."""
        self.listening.open.discard(self)
        self.listening.lingering.discard(self)
        self.inner.connection_lost(exc)

    def expire(self, now: float) -> None:
        """Cut off who has not read for too long, also what was left for it at the end."""
        if self.stalled_since is None and self.transport.is_closing():
            self.stalled_since = now
        if self.stalled_since is not None and now - self.stalled_since > STALL_SECONDS:
            self.transport.abort()


class JoiningTransport:
    """A transport that can keep one write for the next: head and body leave in one system call, and one packet."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._kept, self.keeps_next = transport, b"", False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, behind what was kept."""
        if self.keeps_next:
            self._kept, self.keeps_next = self._kept + data, False
        else:
            self._transport.write(self._kept + data)
            self._kept = b""

    def flush(self) -> None:
        """Write what nothing has followed."""
        if self._kept:
            self.write(b"")

    def close(self) -> None:
        """Close behind what has been written."""
        self.flush()
        self._transport.close()


class HttpConnection(Connection):
    """One client's connection. `arguments` are what uvicorn makes a protocol from."""

    def __init__(self, listening: Listening, **arguments: Any) -> None:
        super().__init__(listening)
        self._arguments = {**arguments, "app_state": {**arguments["app_state"], "connection": self}}
        self._waiting = b""
        self._head_since: float | None = None
        # Of the request that is being served: fields behind its body are no headers.
        self.header_count = 0
        self.body_left = 0  # still to come; -1: as long as its chunks go
        self._unread = 0
        self._is_answering = False
        self._is_refused = False
        self._is_paused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin the time within which the first head has to come; one connection too many is told to come again."""
        self.transport = transport
        if len(self.listening.open) >= self.listening.limit:
            self._refuse(Refusal(503, "overloaded", "too many connections are open", headers=[RETRY_AFTER]))
        else:
            self.listening.open.add(self)
            self._head_since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Pass a body on; keep a head until it is whole and its turn has come."""
        if self.body_left:
            part, data = (data, b"") if self.body_left < 0 else (data[: self.body_left], data[self.body_left :])
            self.body_left -= len(part) if self.body_left > 0 else 0
            self._unread += len(part)
            self.inner.data_received(part)
            if self._unread > MAX_UNREAD:
                self.transport.abort()
        if not data or self._is_refused:
            return
        self._waiting += data
        if self._head_since is None:
            self._head_since = self.loop.time()
        if not self._is_answering:
            self._take_head()
        elif len(self._waiting) > MAX_WAITING:
            self._is_paused = True
            self.transport.pause_reading()

    def _take_head(self) -> None:
        """Hand the next request over, if its head is there."""
        waiting = self._waiting
        if waiting[0] in b"\r\n":
            waiting = waiting.lstrip(b"\r\n")
        end = waiting.find(b"\r\n\r\n") + 4
        if end < 4:
            if waiting[:1].isalpha():
                self._waiting = waiting
                if len(waiting) > MAX_TARGET + MAX_HEADERS:
                    self._refuse(_too_large())
                return
            end = len(waiting)
        self._head_since, self._waiting = None, b""
        line, _, fields = waiting[:end].partition(b"\r\n")
        words = line.split(b" ")
        if len(words) == 3 and len(words[1]) > MAX_TARGET:
            self._refuse(Refusal(414, "URI_TOO_LONG", f"the URL is over {MAX_TARGET} bytes"))
        elif len(fields) - 4 * fields.count(b"\r\n") + 2 > MAX_HEADERS:
            self._refuse(_too_large())
        elif waiting:
            self._serve(waiting[:end], waiting[end:], is_old=words[-1] == b"HTTP/1.0")

    def _serve(self, head: bytes, rest: bytes, *, is_old: bool) -> None:
        names = head.lower()
        if b"\r\nupgrade:" in names and not _WEBSOCKET.search(names):
            # An offer that is not taken up; the parser would read the body as what it offers.
            head = _UPGRADE.sub(b"", head)
        if b"://" in head[:MAX_TARGET] and (absolute := _ABSOLUTE.match(head)):
            # RFC 9112: the target's host stands in place of the one in the header.
            method, host, path, version = absolute.groups()
            fields = _HOST.sub(b"", head[absolute.end() - 2 :])
            head = b"%s /%s %s\r\nHost: %s%s" % (method, path, version, host, fields)
        if b"\r\ntransfer-encoding:" in names:
            self.body_left = -1
        elif b"\r\ncontent-length" in names:  # one that is no number is left to the parser
            self.body_left = int(length[1]) if (length := _LENGTH.search(names)) else -1
        if self.inner is Connection.inner:
            make = self.listening.exact if is_old else self.listening.fast
            self.inner = make.http_protocol_class(**self._arguments)
            self.answer = JoiningTransport(self.transport)
            self.inner.connection_made(self.answer)
        self._is_answering = True
        self._unread = 0
        self.header_count = head.count(b"\r\n") - 2
        self.inner.data_received(head)
        current: Any = self.transport.get_protocol()  # a WebSocket's takes over within the call
        if rest and not self.transport.is_closing():
            current.data_received(rest)

    def on_body_read(self, *, is_whole: bool) -> None:
        """The application has got the body that had come; `is_whole`: to its end."""
        self._unread = 0
        if is_whole and self.body_left < 0:
            self.body_left = 0

    def on_answered(self) -> None:
        """The request has its answer: go on with the next."""
        self._is_answering = False
        self.answer.flush()
        if self.transport.is_closing():
            return
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()
        if self._waiting and not self.body_left:
            self._take_head()

    def break_off(self) -> None:
        """The answer ends here, unfinished: the connection's end shall be a reset."""
        own = self.transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def expire(self, now: float) -> None:
        """Refuse a head that has taken too long."""
        super().expire(now)
        if self._head_since is not None and not self._is_answering and now - self._head_since > HEAD_SECONDS:
            self._refuse(Refusal(408, "REQUEST_TIMEOUT", f"the headers took more than {HEAD_SECONDS:g} s"))

    def _refuse(self, refusal: Refusal) -> None:
        self._is_refused = True
        self._head_since = None
        response = refusal.respond("")
        headers = b"".join(b"%s: %s\r\n" % header for header in response.raw_headers)
        self.transport.write(
            b"HTTP/1.1 %d \r\n%sconnection: close\r\n\r\n%s" % (refusal.status, headers, response.body)
        )
        if len(self.listening.lingering) < MAX_LINGERING and self.transport.can_write_eof():
            self.listening.lingering.add(self)
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()


def _too_large() -> Refusal:
    return Refusal(431, "HEADERS_TOO_LARGE", f"the headers are over {MAX_HEADERS} bytes")


class WebSocketConnection(Connection):
    """One client's connection after its handshake."""

    def __init__(self, listening: Listening, **arguments: Any) -> None:
        super().__init__(listening)
        self._http: HttpConnection = arguments["app_state"]["connection"]
        self.inner = listening.fast.ws_protocol_class(**arguments)  # type: ignore[misc]
        self._is_open = False
        self._held = b""
        self._partial = b""  # of the next frame's head
        self._skipped = 0  # bytes of a frame that come still
        self._fragments = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the place of the connection that the handshake came on."""
        self.transport = transport
        self.listening.open.discard(self._http)
        self.listening.open.add(self)
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass frames on, unless the client does not read: it would be sent an answer to each of its pings."""
        if self.stalled_since is not None:
            self._held += data
            self.transport.pause_reading()
        else:  # the handshake comes first, which uvicorn has read already
            self.inner.data_received(self._bounded(data) if self._is_open else data)
            self._is_open = True

    def resume_writing(self) -> None:
        """It reads again: go on with what it has sent."""
        super().resume_writing()
        held, self._held = self._held, b""
        if held:
            self.transport.resume_reading()
            self.data_received(held)

    def _bounded(self, data: bytes) -> bytes:
        """Return the frames; a message of too many fragments is cut off by one that is too long."""
        known = len(self._partial)
        data = self._partial + data
        at, self._partial = self._skipped, b""
        while at < len(data):
            head = data[at : at + 10]
            length = head[1] & 0x7F if len(head) > 1 else 0
            size = {126: 4, 127: 10}.get(length, 2)
            if len(head) < size:
                self._partial = head
                break
            opcode = head[0] & 0x0F
            if opcode < 8:  # a 0 continues a message
                self._fragments = 0 if opcode else self._fragments + 1
            if self._fragments > MAX_FRAGMENTS:
                return data[known:at] + _OVERSIZED
            at += size + (4 if head[1] & 0x80 else 0) + (length if size == 2 else int.from_bytes(head[2:size], "big"))
        self._skipped = 0 if self._partial else at - len(data)
        return data[known:]


class Listening:
    """The server side of one socket, which it shares with other generations of the worker, and its connections."""

    def __init__(
        self,
        sock: socket.socket,
        application: Any,
        *,
        connections: int | None = None,
        ping_seconds: float = PING_SECONDS,
    ) -> None:
        self._socket = sock
        self.limit = connections or connection_limit()
        self.is_leaving = False
        self.open: set[Connection] = set()
        self.lingering: set[Connection] = set()
        # httptools is fast, and frames every answer as HTTP/1.1 does; h11 knows what an older client can read.
        self.fast = uvicorn_config(application, http="httptools", ws="websockets-sansio")
        self.exact = uvicorn_config(application, http="h11", ws="none")
        self._config = uvicorn_config(
            application,
            http=partial(HttpConnection, self),
            ws=partial(WebSocketConnection, self),
            ws_max_size=MAX_MESSAGE,
            ws_ping_interval=ping_seconds,
            ws_ping_timeout=ping_seconds,
            ws_per_message_deflate=False,  # a small message could unpack to a large one
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        for config in (self.fast, self.exact, self._config):
            config.load()
        self._server = uvicorn.Server(self._config)
        self._tasks: list[asyncio.Task[None]] = []
        # Its lines speak of its own affairs: a client that sends nonsense, an answer that we ended on purpose.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)

    @property
    def address(self) -> tuple[str, int]:
        """The host, as a number, and the port that are listened on."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    async def accept(self) -> None:
        """Take connections from now on."""
        # A duplicate: uvicorn closes the one it is given.
        serving = asyncio.ensure_future(self._server.serve(sockets=[self._socket.dup()]))
        self._tasks = [serving, asyncio.ensure_future(self._tick())]
        while not self._server.started and not serving.done():
            await asyncio.sleep(0)

    def pause(self) -> None:
        """Leave new connections to whoever shares the socket; each open one ends after its next answer."""
        self.is_leaving = True
        for server in self._server.servers:
            server.close()

    def expire(self, now: float) -> None:
        """Refuse whoever has been too slow at `now`, on the loop's clock."""
        for connection in tuple(self.open):
            connection.expire(now)

    async def close(self, seconds: float) -> None:
        """Accept no more, answer what has begun within `seconds`, close what is idle."""
        if self._tasks:
            self.pause()
            # Whoever sent its next request before it saw our last answer gets one for it too.
            await asyncio.sleep(min(IDLE_GRACE_SECONDS, seconds))
            for connection in tuple(self.open):
                if connection.inner is Connection.inner:  # no request has come, so uvicorn does not know of it
                    connection.transport.close()
            self._config.timeout_graceful_shutdown = max(0, round(seconds - IDLE_GRACE_SECONDS))
            self._server.should_exit = True
            await self._tasks[0]
            self._tasks[1].cancel()
            with suppress(asyncio.CancelledError):
                await self._tasks[1]
        self._socket.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.expire(asyncio.get_running_loop().time())


def connection_limit() -> int:
    """Return how many connections this process takes."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if descriptors == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, descriptors // 2)
