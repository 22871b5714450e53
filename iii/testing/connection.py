"""Workers of an engine in memory: the SDK's own, over a connection that is two queues.

What a worker writes is routed on the engine's loop, in the order of the writes. What it is sent waits until it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from socket import socket
from typing import Any

from iii.engine.routing.peer import Peer
from iii.testing.loops import Activity, ClockLoop
from iii.worker.api.options import InitOptions
from iii.worker.channels import ChannelConnector, ChannelSocket, StreamChannelRef
from iii.worker.runtime.threads import LoopThread, ThreadPool
from iii.worker.transport.base import NoTransport
from iii.worker.worker import Worker


class MemoryTransport(NoTransport):
    """A worker's end. `route(peer, data)` takes whole lines, `leave(peer)` the end; both are called on the loop."""

    def __init__(
        self,
        peer: Peer,
        loop: ClockLoop,
        route: Callable[[Peer, bytes], None],
        leave: Callable[[Peer], None],
        activity: Activity,
    ) -> None:
        self._peer = peer
        self._loop = loop
        self._route = route
        self._leave = leave
        self._activity = activity
        self._inbox: SimpleQueue[bytes] = SimpleQueue()
        self._sent = self._read = self._dispatched = 0
        self._is_closed = False
        peer.flush = self._deliver

    def _deliver(self) -> None:
        self._sent += 1
        self._inbox.put(b"".join(line + b"\n" for line in self._peer.take_outbox()))

    def seen(self) -> int | None:
        """Return how often the worker was sent something, None while it has not dispatched all of it."""
        sent = self._sent
        return sent if self._is_closed or self._dispatched == sent else None

    def read(self, timeout: float | None) -> bytes | None:
        self._dispatched = self._read  # who reads again has dispatched what was read before
        self._activity.rest()
        try:
            data = self._inbox.get(timeout=timeout)
        except Empty:
            return None
        if not data:
            self._inbox.put(b"")  # the next read shall find the end too
        self._read += 1
        return data

    def write(self, data: bytes) -> None:
        try:
            self._loop.call_soon_threadsafe(self._route, self._peer, data)
        except RuntimeError:
            raise BrokenPipeError("the engine in memory is closed") from None

    def close(self) -> None:
        """Leave the engine; calls that the worker was running fail."""
        if not self._is_closed:
            self._is_closed = True
            self._inbox.put(b"")
            self._loop.call_soon_threadsafe(self._leave, self._peer)


class SharedLoop(LoopThread):
    """The engine's loop in the place of a worker's own: it is there before the worker and stays when it ends."""

    def __init__(self, loop: ClockLoop, is_current: Callable[[], bool]) -> None:
        super().__init__(lambda *_: None)
        self._loop = loop
        self._is_current = is_current

    def is_current(self) -> bool:
        return self._is_current()

    def stop(self) -> None:
        return


class MemoryConnector(ChannelConnector):
    """Connects to ends of channels; `connect()` returns a connection to the engine in memory."""

    def __init__(self, connect: Callable[[], socket]) -> None:
        self._connect_to_engine = connect

    def connect(self, ref: StreamChannelRef) -> ChannelSocket:
        return ChannelSocket(self._connect_to_engine(), ref.model_dump())


class MemoryWorker(Worker):
    """A worker that gets from the engine what others have in their environment: its `config`, the way to channels."""

    def __init__(
        self,
        transport: MemoryTransport,
        options: InitOptions,
        config: Mapping[str, Any],
        connect: Callable[[], socket],
        *,
        thread_pool: ThreadPool,
        loop: LoopThread,
    ) -> None:
        self._config = dict(config)
        self._connector = MemoryConnector(connect)
        super().__init__(transport, options, address="memory:", thread_pool=thread_pool, loop=loop)

    @property
    def config(self) -> dict[str, Any]:
        """The worker's `config` table of iii.toml as a dict, empty without one."""
        return self._config

    @property
    def _channel_connector(self) -> ChannelConnector:
        return self._connector
