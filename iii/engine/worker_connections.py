"""The connections of worker processes: joins each process of the supervisor with its peer in the router.

Every process has a connection over its pipes; a program with an official SDK makes its own over WebSocket, and is
adopted. The supervisor's hooks are implemented here. What the router and the transports say about a process is passed
on to the supervisor. Runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from iii.engine.config.spec import WorkerSpec
from iii.engine.health.foreign_readiness import readiness_timeout
from iii.engine.routing.events import PeerDrained, PeerReady
from iii.engine.routing.peer import Peer
from iii.engine.supervision.process import Process
from iii.engine.supervision.procfs import read_entry
from iii.engine.supervision.run import ExitReason, Run
from iii.engine.supervision.supervisor import Supervisor
from iii.engine.supervision.timers import Timers
from iii.engine.transport.connection import Connection, Lines
from iii.engine.transport.message_pump import MessagePump
from iii.engine.transport.poller import Poller
from iii.protocol.codec import encode
from iii.protocol.messages import Stop

# Seconds to wait for the exit of a process that has closed its WebSocket: the exit says more about the calls that fail.
EXIT_TIMEOUT = 0.5
# Seconds that a process may live on after it has closed its stdin or stdout, and can answer no call any more.
CLOSED_PIPE_TIMEOUT = 2.0
# How far up the ancestors of a process its worker is looked for.
MAX_ANCESTORS = 32


class WorkerConnections:
    """The connections of all worker processes. Implements `SupervisorHooks`.

    `supervisor` returns the supervisor: it gets these hooks, so it is made after them. `on_unavailable` is called with
    the name of a worker of which nobody will serve soon.
    """

    def __init__(
        self,
        pump: MessagePump,
        poller: Poller,
        supervisor: Callable[[], Supervisor],
        on_unavailable: Callable[[str], None],
    ) -> None:
        self._on_unavailable = on_unavailable
        self._pump = pump
        self._poller = poller
        self._supervisor = supervisor
        self._router = pump.router
        self._by_run: dict[Run, Connection] = {}
        self._adopted: dict[Run, list[Peer]] = {}  # the connections that processes have made themselves
        self._promoted: set[Run] = set()
        self._foreign: set[Run] = set()  # processes without our SDK
        self._hinted: set[Run] = set()  # processes whose log has the hint about stdout
        self._readiness_timers = Timers()  # of programs that never send `ready`: their silence makes them ready
        self._loop = asyncio.get_running_loop()

    @property
    def peers(self) -> list[Peer]:
        return [connection.peer for connection in self._by_run.values()]

    # `SupervisorHooks`

    def opened(self, run: Run, spec: WorkerSpec, process: Process) -> None:
        owner = self._router.peer_table.owner_of(spec.name, spec.namespace)
        owner.is_validated = spec.validate
        owner.has_own_connections = owner.has_own_connections or spec.is_official
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
            may_be_trusted=True,
        )
        connection = Connection(
            peer,
            process.stdout_fd,
            process.stdin_fd,
            poller=self._poller,
            on_lines=self._take_foreign if spec.is_foreign else self._pump.take,
            on_closed=self._on_pipe_closed,
            budget=self._router.calls.budget,
        )
        self._by_run[run] = connection
        self._router.peer_table.attach(peer)
        self._pump.turn()
        if spec.is_foreign:
            self._foreign.add(run)
            self._await_silence(run)

    def promote(self, run: Run) -> None:
        self._promoted.add(run)
        for peer in self._peers_of(run):
            self._router.peer_table.promote(peer)
        self._pump.turn()

    def retire(self, run: Run) -> None:
        self._promoted.discard(run)
        for peer in self._peers_of(run):
            self._router.peer_table.retire(peer)
        self._pump.turn()

    def send_stop(self, run: Run, deadline: float) -> None:
        connection = self._by_run.get(run)
        if connection is None:
            return
        peer = connection.peer
        self._router.calls.send(peer, encode(Stop(deadline * 1000)))
        self._pump.turn()
        if not (peer.owed or peer.outgoing or peer.drains_clients):
            connection.close_input()

    def closed(self, run: Run, reason: ExitReason) -> None:
        self._readiness_timers.cancel(run)
        connection = self._by_run.pop(run, None)
        if connection is None:
            return
        connection.drain()
        connection.take_back_unread()
        if connection.truncated:
            self._supervisor().log(run, f"truncated {connection.truncated} bytes at exit", "engine")
        self._promoted.discard(run)
        self._foreign.discard(run)
        self._hinted.discard(run)
        facts = {
            "words": reason.words,
            "stderr": list(reason.stderr),
            "signal": reason.signal,
            "exit_code": reason.exit_code,
            "reason": "reload" if reason.cause == "reload" else None,
        }
        details = {key: value for key, value in facts.items() if value is not None}
        for peer in [*self._adopted.pop(run, []), connection.peer]:
            peer.drain()
            self._router.peer_table.detach(peer, details)
            peer.close()
        connection.close()
        self._pump.turn()

    def expect(self, worker: str) -> None:
        self._router.peer_table.expect(worker)
        self._pump.turn()

    def unavailable(self, worker: str, reason: Mapping[str, Any]) -> None:
        if reason.get("state") == "removed":  # it is no longer in iii.toml
            self._router.peer_table.forget(worker)
        else:
            self._router.peer_table.refuse_calls(worker, reason)
        self._on_unavailable(worker)
        self._pump.turn()

    def busy(self, run: Run) -> int:
        return sum(peer.busy for peer in self._peers_of(run))

    def owed(self, run: Run) -> int:
        return sum(peer.owed for peer in self._peers_of(run))

    # Events of the router

    def on_peer_ready(self, event: PeerReady) -> None:
        """A worker said that its registrations are complete, or that it has imported more files."""
        run = run_of(event.peer)
        if run is None:
            return
        if event.peer.is_serving or event.has_failed:
            self._supervisor().on_files(run, event.files, event.digests)
        else:
            self._readiness_timers.cancel(run)
            self._supervisor().on_ready(run, event.files, event.digests)

    def on_peer_drained(self, event: PeerDrained) -> None:
        """A connection of a retired process has finished its calls."""
        run = run_of(event.peer)
        if run is not None and not self.owed(run):
            self._supervisor().on_drained(run)

    def on_printed(self, peer: Peer, line: bytes) -> None:
        """Log a line on stdout that is no message: the worker's own output."""
        run = run_of(peer)
        if run is None:
            return
        self._supervisor().log(run, line.decode("utf-8", "replace"))
        # A program that never speaks the protocol (a server, a build) may print what it likes.
        if (peer.functions or peer.staged) and run not in self._hinted:
            self._hinted.add(run)
            self._supervisor().log(run, "this worker speaks the protocol on stdout: let it print to stderr", "engine")

    # Programs without our SDK

    def _take_foreign(self, peer: Peer, lines: Lines) -> None:
        if peer.is_gone:  # the program was adopted: on its stdout it only prints
            for line in lines:
                self.on_printed(peer, line if isinstance(line, bytes) else line.head)
            return
        self._pump.take(peer, lines)
        self.spoke(peer)

    def spoke(self, peer: Peer) -> None:
        """A peer's messages were routed: more registrations may follow, so its process is not ready yet."""
        run = run_of(peer)
        if run is not None and run in self._readiness_timers:
            self._await_silence(run)

    def identified(self, peer: Peer) -> None:
        """A peer called `engine::workers::register`: after that, a foreign worker registers little more."""
        run = run_of(peer)
        if run is not None and run not in self._promoted and run in self._by_run and not peer.is_retired:
            self._await_silence(run)

    def _await_silence(self, run: Run) -> None:
        """From now on, wait for the silence that makes a process ready."""
        owner = self._by_run[run].peer.owner
        timeout = readiness_timeout(owner, self._peers_of(run), is_adopted=run in self._adopted)
        if timeout is None:
            self._readiness_timers.cancel(run)
        else:
            self._readiness_timers.arm(run, timeout, lambda: self._supervisor().on_ready(run))

    # Processes that connect by themselves

    def adopt(self, peer: Peer, pid: int) -> bool:
        """Route a worker process through a connection that it has made itself; `pid` is its own or a child's.

        From then on its pipes carry only its output. Returns False if `pid` belongs to no worker process, or if the
        kernel does not say that this process holds the connection: anybody can name a pid. A session never is a worker.
        """
        may_be_worker = not (peer.is_serving or peer.owner.is_supervised) and peer.rights is None
        run = self._run_with(pid) if may_be_worker and peer.is_held_by(pid) else None
        if run is None:
            return False
        peer_table = self._router.peer_table
        pipe_peer = self._by_run[run].peer
        pipe_peer.owner.has_own_connections = True
        peer_table.adopt(peer, pipe_peer)
        self._adopted.setdefault(run, []).append(peer)
        peer_table.detach(pipe_peer)
        if run in self._promoted:
            peer_table.promote(peer)
        return True

    def _run_with(self, pid: int) -> Run | None:
        """Find the worker process that leads the session of `pid`, or that is `pid` or an ancestor of it."""
        runs = {connection.peer.pid: run for run, connection in self._by_run.items()}
        with contextlib.suppress(OSError, OverflowError):
            session = os.getsid(pid)
            if session in runs:
                return runs[session]
        for _ in range(MAX_ANCESTORS):
            if pid in runs:
                return runs[pid]
            try:
                entry = read_entry(pid)
            except OSError:
                break  # nobody can look: then it is not known to be a worker's
            if entry is None:
                break
            pid = entry.parent
        return None

    def _peers_of(self, run: Run) -> list[Peer]:
        """Return the peers that a process speaks through: its own connections if it made any, else its pipes."""
        if run in self._adopted:
            return self._adopted[run]
        return [self._by_run[run].peer] if run in self._by_run else []

    def left(self, peer: Peer) -> None:
        """Detach a WebSocket peer whose connection is gone; wait for the exit first if it is a worker process's."""
        run = run_of(peer)
        if run in self._adopted and not peer.is_gone:
            self._loop.call_later(EXIT_TIMEOUT, self._let_go, run, peer)
        else:
            self._let_go(run, peer)

    def _let_go(self, run: Run | None, peer: Peer) -> None:
        if run in self._adopted and peer in self._adopted[run]:
            self._adopted[run].remove(peer)
        self._router.peer_table.detach(peer)
        self._pump.turn()

    def _on_pipe_closed(self, connection: Connection) -> None:
        """Replace a process that closed its stdin or stdout and lives on: it can answer no call any more."""
        run = run_of(connection.peer)

        def replace() -> None:
            if run is not None and run in self._by_run:
                self._supervisor().on_unresponsive(run, "closed its stdin or stdout and did not exit")

        self._loop.call_later(CLOSED_PIPE_TIMEOUT, replace)

    # Health

    def serving(self) -> list[tuple[Peer, bool]]:
        """Return the peers of the serving processes, each with whether it answers pings: only our SDK does."""
        return [
            (peer, run not in self._adopted and run not in self._foreign)
            for run in self._promoted
            for peer in self._peers_of(run)
        ]

    def expel(self, peer: Peer, why: str = "") -> None:
        """Replace the worker behind a peer because of `why`; close any other peer after this turn has written to it."""
        run = run_of(peer)
        if why and run is not None and run in self._by_run:
            self._supervisor().on_unresponsive(run, why)
        else:
            self._loop.call_soon(peer.close)

    def close(self) -> None:
        for connection in self._by_run.values():
            connection.close()
        self._readiness_timers.clear()


def run_of(peer: Peer) -> Run | None:
    """Return which worker process a peer belongs to, None for a peer that is not supervised."""
    if peer.owner.is_supervised and peer.instance is not None and peer.generation is not None:
        return Run(peer.owner.name, peer.instance, peer.generation)
    return None
