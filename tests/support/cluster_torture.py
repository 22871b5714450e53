"""Reads and writes of a few keys through three engines, while engines, owners and NATS servers die or stand still.

The clients and the checker are those of `state_torture`.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

from iii import EngineNotRunning, InvocationError
from tests.support.engine_cluster import EngineCluster
from tests.support.ground import Ground, eventually
from tests.support.linear import Operation
from tests.support.nats_servers import NatsServers
from tests.support.state_torture import SCOPE, Client, Outcome, wait_for

NAMES = ("a", "b", "c")
CLIENTS = 6
FAULTS = ("engine", "owner", "server", "freeze")
# Seconds for which the owner stands still: longer than its lease, and than others wait for it.
FREEZE = 7.0
TABLE = 'durable = ["state"]\nsync_always = true\n'


class Reached:
    """One engine, as clients of the torture connect to it."""

    def __init__(self, ground: Ground) -> None:
        self.connect = ground.connection


def torture(folder: Path, servers: NatsServers, operations: int, faults: int, seed: int, limit: float) -> Outcome:
    """Run it all within about `limit` seconds; the faults, each kind in turn, are spread over the operations."""
    dice, began, outcome = random.Random(seed), time.monotonic(), Outcome(kills=dict.fromkeys(FAULTS, 0))
    cluster = EngineCluster(folder, servers)
    try:
        for name in NAMES:
            ground = cluster.add(name, table=TABLE)
            ground.head += "[workers.state]\n"
            ground.laws.clear()
        cluster.start()
        clients = [Client(Reached(cluster[NAMES[n % 3]]), n, operations // CLIENTS) for n in range(1, CLIENTS + 1)]
        for client in clients:
            client.start()
        kinds = dice.sample(FAULTS, len(FAULTS)) * (faults // len(FAULTS) + 1)
        for number, kind in enumerate(kinds[:faults], 1):
            wait_for(clients, operations * number // (faults + 2), began + limit)
            do_harm(cluster, servers, kind)
            outcome.kills[kind] += 1
        wait_for(clients, operations, began + limit)
        for client in clients:
            client.share = 0
        for client in clients:
            client.join()
        for key, history in outcome.histories.items():
            history += [operation for client in clients for operation in client.found[key]]
            start = time.monotonic()
            history.append(Operation("get", read(cluster["a"], key), start, time.monotonic()))
        outcome.acknowledged = sum(client.acknowledged for client in clients)
        outcome.unknown = sum(not each.is_certain for history in outcome.histories.values() for each in history)
    finally:
        cluster.close()
    outcome.seconds = time.monotonic() - began
    return outcome


def do_harm(cluster: EngineCluster, servers: NatsServers, kind: str) -> None:
    """Kill an owner's engine, its worker, or the server that leads its stream; or let its worker stand still."""
    owner = owner_of(cluster)
    if kind == "engine":
        cluster.kill(owner)
        cluster.start_again(owner)
        return
    if kind == "server":
        leader = servers.leader_of("III_shop_STATE")
        servers.kill(leader)
        servers.start(leader)
        return
    pid = cluster[owner].pid("state")
    os.kill(pid, signal.SIGKILL if kind == "owner" else signal.SIGSTOP)
    if kind == "freeze":
        time.sleep(FREEZE)  # the fault itself
        with suppress(ProcessLookupError):  # its engine may have ended it
            os.kill(pid, signal.SIGCONT)


def owner_of(cluster: EngineCluster) -> str:
    """Return the engine whose state worker has functions, once there is one."""

    def found() -> list[str]:
        return [name for name in NAMES if any(row["function_count"] for row in cluster[name].rows("state"))]

    return eventually(found)[0]


def read(ground: Ground, key: str) -> object:
    """Read a key, once an engine serves it."""

    def found() -> list[object]:
        with suppress(InvocationError, EngineNotRunning):
            return [ground.call("state::get", {"scope": SCOPE, "key": key})]
        return []

    return eventually(found)[0]
