"""The clients' connections, each in front of one of uvicorn's protocols: bounds of size, time and number.

A connection stands between its transport and the protocol that uvicorn would have there, and speaks asyncio's protocol
interface to both. It hands over one request at a time, whole heads only; what no parser reads in one way is left to
uvicorn's to refuse. Of the application it hears (through the scope's `state`) how far a request has come.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from functools import partial
from typing import Any

import orjson
from uvicorn import Config

from stdlib_workers.http.replies import RETRY_AFTER, Refusal

HEAD_SECONDS = 10.0
MAX_TARGET = 8 << 10
MAX_HEADERS = 32 << 10
# Requests that wait for the answer to the one before; what comes beyond stays in the kernel.
MAX_WAITING = 64 << 10
# Bytes of a chunked body that the parser has and the application has not: uvicorn stops reading long before.
MAX_UNREAD = 1 << 20
# How long a client may accept no byte of an answer that waits for it.
STALL_SECONDS = 30.0
KEEP_ALIVE_SECONDS = 65
# One WebSocket message, and its fragments, as at the engine's own listener.
MAX_MESSAGE = 4 << 20
MAX_FRAGMENTS = 4096
# A WebSocket whose client answers no ping is gone after twice this.
PING_SECONDS = 20.0
# What a refused client still sends is thrown away for this long: closing at once would reset its connection, and the
# answer with it. So many may wait for that which were one too many.
LINGER_SECONDS = 2.0
MAX_LINGERING = 64

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*(?=\r\n)")
_UPGRADE = re.compile(rb"\r\n(?i:upgrade|http2-settings):[^\r\n]*")
_WEBSOCKET = re.compile(rb"\r\nupgrade:[ \t]*websocket[ \t]*\r\n")
_ABSOLUTE = re.compile(rb"([A-Z]+) (?i:https?)://([^/?# ]+)([^ ]*) (HTTP/1\.[01])\r\n")
_HOST = re.compile(rb"\r\n(?i:host):[^\r\n]*")
# A fragment that says to be longer than any message may: uvicorn's protocol refuses it with 1009, as its own limit.
_OVERSIZED = b"\x80\xff" + (1 << 40).to_bytes(8, "big") + bytes(4)


class Connections:
    """The connections of one server. `config` is what uvicorn serves with; `expire` is called about once a second."""

    def __init__(self, application: Any, limit: int, ping_seconds: float = PING_SECONDS) -> None:
        self.limit = limit
        self.is_leaving = False
        self.lingering = 0
        self.open: set[_Connection] = set()
        self.config = self._config(
            application,
            http=partial(HttpConnection, self),
            ws=partial(WebSocketConnection, self),
            ws_max_size=MAX_MESSAGE,
            ws_ping_interval=ping_seconds,
            ws_ping_timeout=ping_seconds,
            ws_per_message_deflate=False,  # a small message could unpack to a large one
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            server_header=False,
        )
        # httptools is fast, and frames every answer as HTTP/1.1 does; h11 knows what an older client can read.
        self.fast = self._config(application, http="httptools", ws="websockets-sansio")
        self.exact = self._config(application, http="h11", ws="none")

    @staticmethod
    def _config(application: Any, **options: Any) -> Config:
        config = Config(
            application,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            **options,
        )
        config.load()
        return config

    def expire(self, now: float) -> None:
        """Refuse whoever has been too slow at `now`, on the loop's clock."""
        for connection in tuple(self.open):
            connection.expire(now)

    def close_unused(self) -> None:
        """Close the connections on which no request has come yet: uvicorn does not know of them."""
        for connection in tuple(self.open):
            if connection.inner is None:
                connection.transport.close()


class _Connection(asyncio.Protocol):
    """What both kinds share: writing that stalls, and the end."""

    transport: asyncio.Transport
    inner: Any = None
    _stalled_since: float | None = None
    _closing_since: float | None = None

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.loop = asyncio.get_running_loop()

    @property
    def is_stalled(self) -> bool:
        """Whether more waits to be read by the client than may."""
        return self._stalled_since is not None

    def pause_writing(self) -> None:
        """Note since when the client has not read."""
        self._stalled_since = self.loop.time()
        if self.inner is not None:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self._stalled_since = None
        if self.inner is not None:
            self.inner.resume_writing()

    def eof_received(self) -> None:
        """Close with the client."""
        if self.inner is not None:
            self.inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell uvicorn."""
        self.connections.open.discard(self)
        if self.inner is not None:
            self.inner.connection_lost(exc)

    def expire(self, now: float) -> None:
        """Cut off who has not read for too long, also what was left for it at the end."""
        if self.transport.is_closing():
            self._closing_since = self._closing_since or now
        since = min((moment for moment in (self._stalled_since, self._closing_since) if moment), default=now)
        if now - since > STALL_SECONDS:
            self.transport.abort()


class JoiningTransport:
    """A transport that can keep one write for the next: head and body leave in one system call, and one packet."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._kept = b""
        self.keeps_next = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, behind what was kept."""
        if self.keeps_next:
            self._kept, self.keeps_next = data, False
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


class HttpConnection(_Connection):
    """One client's connection. `arguments` are what uvicorn makes a protocol from."""

    def __init__(self, connections: Connections, **arguments: Any) -> None:
        super().__init__(connections)
        self._arguments = {**arguments, "app_state": {**arguments["app_state"], "connection": self}}
        self._waiting = b""
        self._head_since: float | None = None
        self.header_count = 0  # of the request that is being served: fields behind its body are no headers
        self._body_left = 0  # of the request that is being served; -1: as long as its chunks go
        self._unread = 0
        self._is_answering = False
        self._is_refused = False
        self._is_paused = False

    @property
    def is_leaving(self) -> bool:
        """Whether the next answer is the last."""
        return self.connections.is_leaving

    @property
    def has_whole_body(self) -> bool:
        """Whether nothing of the body has to be waited for."""
        return not self._body_left

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin the time within which the first head has to come; one connection too many is told to come again."""
        self.transport = transport
        if len(self.connections.open) >= self.connections.limit:
            refusal = Refusal(503, "overloaded", "too many connections are open", headers=[RETRY_AFTER])
            self._refuse(refusal, lingers=self.connections.lingering < MAX_LINGERING)
            return
        self.connections.open.add(self)
        self._head_since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Pass a body on; keep a head until it is whole and its turn has come."""
        if self._body_left < 0:
            self._unread += len(data)
            self.inner.data_received(data)
            if self._unread > MAX_UNREAD:
                self.transport.abort()
            return
        if self._body_left:
            part, data = data[: self._body_left], data[self._body_left :]
            self._body_left -= len(part)
            self.inner.data_received(part)
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
        if end < 4 and waiting[:1].isalpha():
            self._waiting = waiting
            if len(waiting) > MAX_TARGET + MAX_HEADERS:
                self._refuse(_too_large())
            return
        self._head_since, self._waiting = None, b""
        if not waiting:
            return
        head, rest = (waiting[:end], waiting[end:]) if end >= 4 else (waiting, b"")
        line, _, fields = head.partition(b"\r\n")
        words = line.split(b" ")
        if len(words) == 3 and len(words[1]) > MAX_TARGET:
            self._refuse(Refusal(414, "URI_TOO_LONG", f"the URL is over {MAX_TARGET} bytes"))
        elif len(fields) - 4 * fields.count(b"\r\n") + 2 > MAX_HEADERS:
            self._refuse(_too_large())
        else:
            self._serve(head, rest, is_old=words[-1] == b"HTTP/1.0")

    def _serve(self, head: bytes, rest: bytes, *, is_old: bool) -> None:
        names = head.lower()
        if b"\r\nupgrade:" in names and not _WEBSOCKET.search(names):
            # An offer that is not taken up; the parser would read the body as what it offers.
            head = _UPGRADE.sub(b"", head)
        if b"://" in head[:MAX_TARGET] and (absolute := _ABSOLUTE.match(head)):
            # RFC 9112: the target's host stands in place of the one in the header.
            method, host, path, version = absolute.groups()
            path = path if path.startswith(b"/") else b"/" + path
            fields = _HOST.sub(b"", head[absolute.end() - 2 :])
            head = b"%s %s %s\r\nHost: %s%s" % (method, path, version, host, fields)
        if b"\r\ntransfer-encoding:" in names or names.count(b"\r\ncontent-length") > 1:
            self._body_left = -1
        elif b"\r\ncontent-length" in names:
            length = _LENGTH.search(names)
            self._body_left = int(length[1]) if length else -1
        if self.inner is None:
            config = self.connections.exact if is_old else self.connections.fast
            self.inner = config.http_protocol_class(**self._arguments)
            self._joining = JoiningTransport(self.transport)
            self.inner.connection_made(self._joining)
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
        if is_whole and self._body_left < 0:
            self._body_left = 0

    def on_head(self) -> None:
        """The head of an answer comes next, and what follows it at once."""
        self._joining.keeps_next = True

    def on_answered(self) -> None:
        """The request has its answer: go on with the next."""
        self._joining.flush()
        self._is_answering = False
        if self._is_paused and not self.transport.is_closing():
            self._is_paused = False
            self.transport.resume_reading()
        if self._waiting and not self._body_left and not self.transport.is_closing():
            self._take_head()

    def break_off(self, *, is_reset: bool) -> None:
        """The answer ends here, unfinished. `is_reset`: the client tells an answer's end by the connection's end."""
        if is_reset:
            own = self.transport.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def expire(self, now: float) -> None:
        """Refuse a head that has taken too long."""
        super().expire(now)
        if self._head_since is not None and not self._is_answering and now - self._head_since > HEAD_SECONDS:
            self._refuse(Refusal(408, "REQUEST_TIMEOUT", f"the headers took more than {HEAD_SECONDS:g} s"))

    def _refuse(self, refusal: Refusal, *, lingers: bool = True) -> None:
        self._is_refused = True
        self._head_since = None
        body = orjson.dumps({"error": {"code": refusal.code, "message": refusal.message}})
        headers = b"".join(b"%s: %s\r\n" % header for header in refusal.headers)
        self.transport.write(
            b"HTTP/1.1 %d \r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n%s\r\n%s"
            % (refusal.status, len(body), headers, body)
        )
        if not lingers:
            self.transport.close()
            return
        self.connections.lingering += 1
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self._close_refused)

    def _close_refused(self) -> None:
        self.connections.lingering -= 1
        self.transport.close()


def _too_large() -> Refusal:
    return Refusal(431, "HEADERS_TOO_LARGE", f"the headers are over {MAX_HEADERS} bytes")


class WebSocketConnection(_Connection):
    """One client's connection after its handshake."""

    def __init__(self, connections: Connections, **arguments: Any) -> None:
        super().__init__(connections)
        self._http: HttpConnection = arguments["app_state"]["connection"]
        self.inner = connections.fast.ws_protocol_class(**arguments)  # type: ignore[misc]
        self._is_open = False
        self._held = b""
        self._partial = b""  # of the next frame's head
        self._skipped = 0  # bytes of a frame that come still
        self._fragments = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the place of the connection that the handshake came on."""
        self.transport = transport
        self.connections.open.discard(self._http)
        self.connections.open.add(self)
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass frames on, unless the client does not read: it would be sent an answer to each of its pings."""
        if not self._is_open:
            self._is_open = True  # the handshake, which uvicorn has read already
            self.inner.data_received(data)
        elif self._stalled_since is not None:
            self._held += data
            self.transport.pause_reading()
        else:
            self.inner.data_received(self._bounded(data))

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
            head = data[at : at + 14]
            code = head[1] & 0x7F if len(head) > 1 else 0
            size = {126: 4, 127: 10}.get(code, 2)
            if len(head) < size:
                self._partial = head
                break
            opcode = head[0] & 0x0F
            if opcode == 0:
                self._fragments += 1
                if self._fragments > MAX_FRAGMENTS:
                    return data[known:at] + _OVERSIZED
            elif opcode < 8:
                self._fragments = 0
            length = code if size == 2 else int.from_bytes(head[2:size], "big")
            at += size + (4 if head[1] & 0x80 else 0) + length
        self._skipped = 0 if self._partial else at - len(data)
        return data[known:]
