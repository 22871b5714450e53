"""Peers on the unix socket: the command line and other local programs. They come and go; none is supervised.

A connection whose first line asks for an end of a channel is no peer: it is handed over to the channels.
"""

from __future__ import annotations

import socket
import time
import uuid

from iii.engine.channels.unix_endpoint import ChannelAcceptor, request_in
from iii.engine.routing.peer import Peer
from iii.engine.transport.connection import Connection, Lines
from iii.engine.transport.message_pump import MessagePump
from iii.engine.transport.poller import Poller


class LocalClients:
    """The connections that were accepted on the unix socket."""

    def __init__(self, pump: MessagePump, poller: Poller, channels: ChannelAcceptor) -> None:
        self._pump = pump
        self._poller = poller
        self._channels = channels
        self._peer_table = pump.router.peer_table
        self._connections: set[Connection] = set()

    @property
    def peers(self) -> list[Peer]:
        return [connection.peer for connection in self._connections]

    def accept(self, connected: socket.socket) -> None:
        """Make a peer for an accepted socket."""

        def take_first(peer: Peer, lines: Lines) -> None:
            """The first line tells whether the connection is a peer or an end of a channel."""
            request = request_in(lines)
            if request is None:
                connection.on_lines = self._pump.take
                self._pump.take(peer, lines)
                return
            self._connections.discard(connection)
            self._peer_table.detach(peer)
            self._channels.open(connection.release(), request)

        peer = Peer(
            str(uuid.uuid4()),
            kind="client",
            name="local",
            is_local=True,
            connected_at_ms=int(time.time() * 1000),
            close=lambda: self._on_closed(connection),
        )
        fd = connected.detach()
        connection = Connection(
            peer,
            fd,
            fd,
            poller=self._poller,
            on_lines=take_first,
            on_closed=self._on_closed,
            budget=self._pump.router.calls.budget,
        )
        self._connections.add(connection)
        self._peer_table.attach(peer)
        self._pump.turn()

    def _on_closed(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._peer_table.detach(connection.peer)
            connection.close()
            self._pump.turn()

    def close(self) -> None:
        self._channels.close()
        for connection in list(self._connections):
            connection.close()
