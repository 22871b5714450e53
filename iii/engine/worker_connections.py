"""Joins processes and peers: what the supervisor asks of the connections and routes, and what those tell it.

One connection for every process, and one for every local peer on the unix socket. The supervisor's hooks end here;
the router's events that concern a process go back to the supervisor. Runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from iii.engine.channels.unix_endpoint import ChannelDoor, request_in
from iii.engine.config.spec import WorkerSpec
from iii.engine.health.foreign_readiness import patience
from iii.engine.health.slow_consumers import SlowConsumers
from iii.engine.routing.events import PeerDrained, PeerReady
from iii.engine.routing.peer import Peer
from iii.engine.supervision.process import Process
from iii.engine.supervision.run import ExitReason, Run
from iii.engine.supervision.supervisor import Supervisor
from iii.engine.transport.connection import Connection, Lines
from iii.engine.transport.message_pump import MessagePump
from iii.engine.transport.poller import make_poller
from iii.protocol.codec import encode
from iii.protocol.messages import Stop
from iii.redaction import Redactor

# A process that is dying closes its connections a moment before it is dead: its exit says more than they do.
LINGER = 0.5
# A process that closed its stdin or stdout is about to exit, or can never answer again.
MUTE = 2.0
# How often to look for peers that do not read.
LOOK = 1.0


class WorkerConnections:
    """The connections of all processes and local peers. Implements `SupervisorHooks`."""

    def __init__(self, pump: MessagePump) -> None:
        self.pump = pump
        self.supervisor: Supervisor  # set by the composition root: the two know each other
        self.channel_door: ChannelDoor  # as well
        self.poller = make_poller(pump.turn)
        self.redactor = Redactor()  # the composition root knows the secrets
        self._router = pump.router
        self._by_run: dict[Run, Connection] = {}
        self._clients: set[Connection] = set()
        self._quiet: dict[Run, asyncio.TimerHandle] = {}
        self._adopted: dict[Run, list[Peer]] = {}  # connections that processes made themselves
        self._promoted: set[Run] = set()
        self._foreign: set[Run] = set()  # processes without our SDK
        self._hinted: set[Run] = set()
        self._slow_consumers = SlowConsumers()
        self._loop = asyncio.get_running_loop()
        self._look = self._loop.call_later(LOOK, self._check_slow_consumers)

    # Hooks of the supervisor

    def opened(self, run: Run, spec: WorkerSpec, process: Process) -> None:
        """A process runs: make its peer and its connection."""
        owner = self._router.peer_table.owner_of(spec.name, spec.namespace)
        owner.is_validated = spec.validate
        owner.connects = owner.connects or spec.is_official
        peer = Peer(
            str(uuid.uuid4()),
            kind="worker",
            name=spec.name,
            namespace=spec.namespace,
            owner=owner,
            generation=run.generation,
            instance=run.instance,
            concurrency=spec.concurrency,
            pid=process.pid,
            reattach_token=secrets.token_hex(16),
            connected_at_ms=int(time.time() * 1000),
        )
        peer.may_vouch = True
        connection = Connection(
            peer,
            process.stdout_fd,
            process.stdin_fd,
            poller=self.poller,
            on_lines=self._take_foreign if spec.is_foreign else self.pump.take,
            on_closed=self._on_pipe_closed,
        )
        self._by_run[run] = connection
        self._router.peer_table.attach(peer)
        self.pump.turn()
        if spec.is_foreign:
            self._foreign.add(run)
            self._wait_for_quiet(run)

    def promote(self, run: Run) -> None:
        """Route to this generation."""
        self._promoted.add(run)
        for peer in self._peers_of(run):
            self._router.peer_table.promote(peer)
        self.pump.turn()

    def retire(self, run: Run) -> None:
        """Route nothing new to it."""
        self._promoted.discard(run)
        for peer in self._peers_of(run):
            self._router.peer_table.retire(peer)
        self.pump.turn()

    def send_stop(self, run: Run, deadline: float) -> None:
        """Ask it to finish within `deadline` seconds; end its input unless something may still come in."""
        connection = self._by_run.get(run)
        if connection is None:
            return
        peer = connection.peer
        self._router.calls.send(peer, encode(Stop(deadline * 1000)))
        self.pump.turn()
        if not (peer.owed or peer.outgoing or peer.lingers):
            connection.close_input()

    def closed(self, run: Run, reason: ExitReason) -> None:
        """The process is gone: take its last results, settle the rest."""
        self._stop_waiting(run)
        connection = self._by_run.pop(run, None)
        if connection is None:
            return
        connection.drain()
        connection.take_back_unread()
        if connection.truncated:
            self.supervisor.log(run, f"truncated {connection.truncated} bytes at exit", "engine")
        self._promoted.discard(run)
        self._foreign.discard(run)
        self._hinted.discard(run)
        for peer in [*self._adopted.pop(run, []), connection.peer]:
            peer.drain()
            self._router.peer_table.detach(peer, _details(reason))
            peer.close()
        connection.close()
        self.pump.turn()

    def expect(self, worker: str) -> None:
        """Calls to this worker wait."""
        self._router.peer_table.expect(worker)
        self.pump.turn()

    def unavailable(self, worker: str, reason: Mapping[str, Any]) -> None:
        """Calls to this worker are refused; if it is no longer declared, its functions are forgotten."""
        if reason.get("state") == "removed":
            self._router.peer_table.forget(worker)
        else:
            self._router.peer_table.refuse_calls(worker, reason)
        self.pump.turn()

    def busy(self, run: Run) -> int:
        """Return how many calls run on it."""
        return sum(peer.busy for peer in self._peers_of(run))

    def owed(self, run: Run) -> int:
        """Return how many calls it must still finish."""
        return sum(peer.owed for peer in self._peers_of(run))

    def redact(self, text: str) -> str:
        """Return what a worker wrote without the secrets of the project."""
        return self.redactor(text)

    # Events of the router

    def on_ready(self, event: PeerReady) -> None:
        """A worker said that its registrations are complete, or that it imported more files."""
        run = _run_of(event.peer)
        if run is None:
            return
        if event.peer.is_serving:
            self.supervisor.on_files(run, event.files)
        else:
            self._stop_waiting(run)
            self.supervisor.on_ready(run, event.files)

    def on_drained(self, event: PeerDrained) -> None:
        """A retired process has finished its calls."""
        run = _run_of(event.peer)
        if run is not None and not self.owed(run):
            self.supervisor.on_drained(run)

    def on_output(self, peer: Peer, line: bytes) -> None:
        """A line on stdout that is no message: the worker's output."""
        run = _run_of(peer)
        if run is None:
            return
        self.supervisor.log(run, line.decode("utf-8", "replace"))
        # A server or a build that never speaks the protocol may print what it likes.
        if (peer.functions or peer.staged) and run not in self._hinted:
            self._hinted.add(run)
            self.supervisor.log(run, "this worker speaks the protocol on stdout: let it print to stderr", "engine")

    # Programs without SDK

    def _take_foreign(self, connection: Connection, lines: Lines) -> None:
        if connection.peer.is_gone:  # it speaks over a connection of its own: here it only prints
            for line in lines:
                self.on_output(connection.peer, line if isinstance(line, bytes) else line.head)
            return
        self.pump.take(connection, lines)
        self.spoke(connection.peer)

    def spoke(self, peer: Peer) -> None:
        """A peer's messages were routed: one that may still register more is not ready yet."""
        run = _run_of(peer)
        if run in self._quiet:
            self._wait_for_quiet(run)

    def _wait_for_quiet(self, run: Run) -> None:
        self._stop_waiting(run)
        seconds = patience(self._by_run[run].peer.owner, self._peers_of(run), is_adopted=run in self._adopted)
        if seconds is not None:
            self._quiet[run] = self._loop.call_later(seconds, self._on_quiet, run)

    def _stop_waiting(self, run: Run) -> None:
        timer = self._quiet.pop(run, None)
        if timer is not None:
            timer.cancel()

    def _on_quiet(self, run: Run) -> None:
        del self._quiet[run]
        self.supervisor.on_ready(run, [])

    def identified(self, peer: Peer) -> None:
        """A peer called `engine::workers::register`: a foreign worker has little more to say after it."""
        run = _run_of(peer)
        if run is not None and run not in self._promoted and run in self._by_run and not peer.is_retired:
            self._wait_for_quiet(run)

    # Processes that connect by themselves

    def adopt(self, peer: Peer, pid: int) -> bool:
        """Make a connection that the process with `pid` (or a child of it) made the way its worker speaks.

        Its pipes carry only its output from then on.
        """
        run = None if peer.is_serving or peer.owner.is_supervised else self._run_with(pid)
        if run is None:
            return False
        peer_table = self._router.peer_table
        seat = self._by_run[run].peer
        seat.owner.connects = True
        peer_table.adopt(peer, seat)
        self._adopted.setdefault(run, []).append(peer)
        peer_table.detach(seat)
        if run in self._promoted:
            peer_table.promote(peer)
        return True

    def _run_with(self, pid: int) -> Run | None:
        """Find the process: workers lead sessions of their own, which their children stay in."""
        try:
            session = os.getsid(pid)
        except (OSError, OverflowError):
            return None
        runs = {connection.peer.pid: run for run, connection in self._by_run.items()}
        return runs.get(session)

    def _peers_of(self, run: Run) -> list[Peer]:
        """Return the peers a process speaks through: those it made, else its pipes."""
        if run in self._adopted:
            return self._adopted[run]
        return [self._by_run[run].peer] if run in self._by_run else []

    def left(self, peer: Peer) -> None:
        """A WebSocket peer is gone. If it is a process of ours, wait a moment: its exit may say why."""
        run = _run_of(peer)
        if run in self._adopted and not peer.is_gone:
            self._loop.call_later(LINGER, self._let_go, run, peer)
        else:
            self._let_go(run, peer)

    def _let_go(self, run: Run | None, peer: Peer) -> None:
        if run in self._adopted and peer in self._adopted[run]:
            self._adopted[run].remove(peer)
        self._router.peer_table.detach(peer)
        self.pump.turn()

    def _on_pipe_closed(self, connection: Connection) -> None:
        """A process closed its stdin or stdout but lives: it can answer nothing any more."""
        run = _run_of(connection.peer)
        if run is not None and run in self._by_run:
            self._loop.call_later(MUTE, self._give_up_mute, run)

    # Signs of life

    def watched(self) -> list[tuple[Peer, bool]]:
        """Return the peers of the serving processes, each with whether it answers pings: official SDKs do not."""
        return [
            (peer, run not in self._adopted and run not in self._foreign)
            for run in self._promoted
            for peer in self._peers_of(run)
        ]

    def give_up(self, peer: Peer, why: str) -> None:
        """The process behind this peer is dead inside: replace it."""
        run = _run_of(peer)
        if run is not None:
            self.supervisor.on_unresponsive(run, why, at_once=True)

    def _give_up_mute(self, run: Run) -> None:
        if run in self._by_run:
            self.supervisor.on_unresponsive(run, "closed its stdin or stdout and did not exit")

    # Peers that must go

    def expel(self, peer: Peer, why: str = "") -> None:
        """Close a peer's transport once this turn has written what it is told; replace a worker at fault."""
        run = _run_of(peer)
        if why and run in self._by_run:
            self.supervisor.on_unresponsive(run, why)
        else:
            self._loop.call_soon(peer.close)

    def _check_slow_consumers(self) -> None:
        self._look = self._loop.call_later(LOOK, self._check_slow_consumers)
        peers = [connection.peer for connection in (*self._by_run.values(), *self._clients)]
        for peer, why in self._slow_consumers.look(peers, self._has_live_call):
            self.expel(peer, why)

    def _has_live_call(self, callee: Peer) -> bool:
        calls = self._router.calls.in_flight.values()
        return any(call.callee is callee and not call.is_abandoned for call in calls)

    # Local peers

    def accept(self, connected: socket.socket) -> None:
        """A local peer connected to the unix socket."""
        peer = Peer(str(uuid.uuid4()), kind="client", name="local", connected_at_ms=int(time.time() * 1000))
        fd = connected.detach()
        connection = Connection(
            peer, fd, fd, poller=self.poller, on_lines=self._take_first, on_closed=self._on_client_closed
        )
        peer.close = partial(self._on_client_closed, connection)
        self._clients.add(connection)
        self._router.peer_table.attach(peer)
        self.pump.turn()

    def _take_first(self, connection: Connection, lines: Lines) -> None:
        """The first line of a local connection says whether it is a peer or an end of a channel."""
        request = request_in(lines)
        if request is None:
            connection.on_lines = self.pump.take
            self.pump.take(connection, lines)
            return
        self._clients.discard(connection)
        self._router.peer_table.detach(connection.peer)
        self.channel_door.open(connection.release(), request)

    def _on_client_closed(self, connection: Connection) -> None:
        if connection not in self._clients:
            return
        self._clients.discard(connection)
        self._router.peer_table.detach(connection.peer)
        connection.close()
        self.pump.turn()

    def close(self) -> None:
        """Close every connection."""
        self._look.cancel()
        self.channel_door.close()
        for connection in [*self._clients, *self._by_run.values()]:
            connection.close()
        for run in list(self._quiet):
            self._stop_waiting(run)
        self.poller.close()


def _run_of(peer: Peer) -> Run | None:
    if peer.owner.is_supervised and peer.instance is not None and peer.generation is not None:
        return Run(peer.owner.name, peer.instance, peer.generation)
    return None


def _details(reason: ExitReason) -> dict[str, Any]:
    """What the error of a call that ran on the dead process tells."""
    details: dict[str, Any] = {"words": reason.words, "stderr": list(reason.stderr)}
    if reason.signal is not None:
        details["signal"] = reason.signal
    if reason.exit_code is not None:
        details["exit_code"] = reason.exit_code
    if reason.cause == "reload":
        details["reason"] = "reload"
    return details
