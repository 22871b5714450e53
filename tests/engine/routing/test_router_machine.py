"""Random histories against the router's laws: one outcome a call, nothing run twice, nothing lost, nothing left.

Hypothesis plays peers, transports, the supervisor and the clock. `outcomes` and `runs` are the test's own books.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from iii.engine.routing.budget import CALL_OVERHEAD, SHORT_LINE
from iii.engine.routing.invocation import Invocation
from iii.engine.routing.peer import Peer
from tests.support.routing import Net, limits

# Worker: (its functions, instances at most, concurrency). `shared` is also registered by a peer outside.
WORKERS: dict[str, tuple[tuple[str, ...], int | None]] = {
    "narrow": (("narrow::f", "shared"), 1),
    "wide": (("wide::f", "wide::again"), None),
    "pair": (("pair::f",), 2),
}
IDEMPOTENT = {"wide::again"}
FUNCTIONS = ["narrow::f", "shared", "wide::f", "wide::again", "pair::f", "unknown::f"]
WAITING = 6


class RouterLaws(RuleBasedStateMachine):
    """One engine's life."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net(timeout=10.0, limits=limits(waiting_per_function=WAITING, calls_per_peer=12, depth=4))
        self.router = self.net.router
        self.clients = [self.net.peer("alice", kind="client"), self.net.peer("bob", kind="client")]
        self.outside = self.net.peer("outside")
        self.processes: list[Peer] = []
        self.generations: Counter[str] = Counter()
        self.calls = 0
        self.made: dict[str, tuple[Peer, str, float]] = {}  # id -> caller, function, deadline
        self.outcomes: Counter[str] = Counter()
        self.cancelled: set[str] = set()
        # What each process read of its input: the calls that it may have started, in order.
        self.runs: defaultdict[Peer, list[str]] = defaultdict(list)
        self.unread: defaultdict[Peer, list[tuple[int, str]]] = defaultdict(list)  # end of the line, id
        self.seen: defaultdict[str, list[Peer]] = defaultdict(list)  # id -> processes that read it whole

    # Reading what the router sent

    def read(self, peer: Peer) -> None:
        """Move the lines of an outbox to the books; the transport's progress is `peer.written`."""
        end = peer.enqueued - sum(len(line) + 1 for line in peer.outbox)
        lines = peer.outbox[:]
        for line, message in zip(lines, self.net.got(peer, write=False), strict=True):
            end += len(line) + 1
            if message["type"] == "invocationresult":
                self.note_outcome(peer, message["invocation_id"])
            elif message["type"] == "invokefunction":
                self.unread[peer].append((end, message["invocation_id"]))
        self.advance(peer)

    def note_outcome(self, peer: Peer, id: str) -> None:
        assert self.made[id][0] is peer, "an outcome reached another peer than the caller"
        assert id not in self.cancelled, "an outcome after the cancellation"
        self.outcomes[id] += 1

    def advance(self, peer: Peer) -> None:
        unread = self.unread[peer]
        while unread and unread[0][0] <= peer.written:
            _, id = unread.pop(0)
            self.runs[peer].append(id)
            self.seen[id].append(peer)

    def read_all(self) -> None:
        for peer in [*self.clients, self.outside, *self.processes]:
            self.read(peer)

    # Peers

    def supervised(self, state: str) -> list[Peer]:
        tests = {
            "starting": lambda peer: not peer.is_serving and not peer.is_retired,
            "serving": lambda peer: peer.is_serving,
            "retired": lambda peer: peer.is_retired,
            "any": lambda peer: True,
        }
        return [peer for peer in self.processes if tests[state](peer)]

    def pick(self, data: st.DataObject, choices: list[Any]) -> Any:
        """Draw one of them, None of none. (A failed `assume` would throw the whole history away.)"""
        return choices[data.draw(st.integers(0, len(choices) - 1))] if choices else None

    @rule(worker=st.sampled_from(sorted(WORKERS)), instance=st.integers(1, 2), drops=st.booleans())
    def start_one(self, worker: str, instance: int, drops: bool) -> None:
        self.start(worker, instance, drops=drops)

    def start(self, worker: str, instance: int, *, drops: bool = False) -> Peer:
        functions, concurrency = WORKERS[worker]
        self.generations[worker] += 1
        peer = self.net.worker(worker, self.generations[worker], instance, concurrency=concurrency)
        for function in functions[: -1 if drops and len(functions) > 1 else None]:
            self.net.register(peer, function, metadata={"idempotent": function in IDEMPOTENT})
        self.processes.append(peer)
        return peer

    @initialize()
    def everything_starts(self) -> None:
        for worker in WORKERS:
            self.promote(self.start(worker, 1))

    @rule(worker=st.sampled_from(sorted(WORKERS)), instance=st.integers(1, 2))
    def replace(self, worker: str, instance: int) -> None:
        self.promote(self.start(worker, instance))

    @rule(data=st.data())
    def promote_one(self, data: st.DataObject) -> None:
        new = self.pick(data, self.supervised("starting"))
        if new is not None:
            self.promote(new)

    def promote(self, new: Peer) -> None:
        self.router.peer_table.promote(new)
        for old in self.supervised("serving"):
            if old is not new and (old.owner, old.instance) == (new.owner, new.instance):
                self.router.peer_table.retire(old)

    @rule(data=st.data())
    def retire_one(self, data: st.DataObject) -> None:
        peer = self.pick(data, self.supervised("any"))
        if peer is not None:
            self.router.peer_table.retire(peer)

    @rule(data=st.data(), is_read=st.booleans())
    def kill(self, data: st.DataObject, is_read: bool) -> None:
        peer = self.pick(data, self.supervised("any"))
        if peer is None:
            return
        if is_read:
            self.net.write(peer)
        self.leave(peer)

    def leave(self, peer: Peer) -> None:
        self.read(peer)
        self.router.peer_table.detach(peer, {"words": "killed"})
        self.processes.remove(peer)

    @rule(worker=st.sampled_from(sorted(WORKERS)))
    def expect(self, worker: str) -> None:
        if not self.router.peer_table.owner_of(worker).peers:
            self.router.peer_table.expect(worker)

    @rule(worker=st.sampled_from(sorted(WORKERS)))
    def refuse_calls(self, worker: str) -> None:
        self.router.peer_table.refuse_calls(worker, {"state": "failed"})

    @rule(worker=st.sampled_from(sorted(WORKERS)))
    def forget(self, worker: str) -> None:
        for peer in self.supervised("any"):
            if peer.owner.name == worker:
                self.leave(peer)
        self.router.peer_table.forget(worker)

    @rule(registers=st.booleans())
    def outside_registers(self, registers: bool) -> None:
        self.net.send(self.outside, "registerfunction" if registers else "unregisterfunction", id="shared")

    @rule(data=st.data())
    def unregister(self, data: st.DataObject) -> None:
        peer = self.pick(data, self.supervised("serving"))
        if peer is not None:
            self.net.send(peer, "unregisterfunction", id=self.pick(data, list(WORKERS[peer.owner.name][0])))

    @rule(which=st.integers(0, 1))
    def client_leaves_and_comes_back(self, which: int) -> None:
        old = self.clients[which]
        self.read(old)
        self.router.peer_table.detach(old)
        self.cancelled |= {id for id, (caller, _, _) in self.made.items() if caller is old}
        self.clients[which] = self.net.peer(f"{old.id}'", kind="client")

    # Calls

    def call(self, caller: Peer, function: str, seconds: float | None, parent: str | None = None) -> None:
        self.calls += 1
        id = f"c{self.calls}"
        fields: dict[str, Any] = {"caller": {"invocation_id": parent}} if parent else {}
        if seconds is not None:
            fields["deadline_ms"] = seconds * 1000
        self.made[id] = (caller, function, self.net.now + (seconds or 10.0))
        self.net.call(caller, function, id, **fields)

    @rule(
        functions=st.lists(st.tuples(st.integers(0, 1), st.sampled_from(FUNCTIONS)), min_size=1, max_size=6),
        seconds=st.none() | st.sampled_from([0.5, 3.0, 60.0]),
    )
    def clients_call(self, functions: list[tuple[int, str]], seconds: float | None) -> None:
        for which, function in functions:
            self.call(self.clients[which], function, seconds)

    @rule(
        functions=st.lists(st.sampled_from(["wide::f", "wide::again"]), min_size=1, max_size=4),
        instance=st.integers(1, 2),
    )
    def die_with_calls_and_come_back(self, functions: list[str], instance: int) -> None:
        """The history in which a call may be run twice by mistake."""
        for function in functions:
            self.call(self.clients[0], function, None)
        self.transports_take_everything()
        for peer in self.supervised("serving"):
            if peer.owner.name == "wide":
                self.leave(peer)
        self.promote(self.start("wide", instance))
        self.transports_take_everything()

    @rule(function=st.sampled_from(FUNCTIONS), which=st.integers(0, 1))
    def void_call(self, function: str, which: int) -> None:
        self.net.void(self.clients[which], function)

    @rule(data=st.data(), function=st.sampled_from(FUNCTIONS))
    def handler_calls(self, data: st.DataObject, function: str) -> None:
        self.read_all()
        peer = self.pick(data, [peer for peer in self.processes if self.runs[peer]])
        if peer is not None:
            self.call(peer, function, None, self.pick(data, self.runs[peer]))

    @rule(data=st.data())
    def right_answer(self, data: st.DataObject) -> None:
        self.read_all()
        for _ in range(data.draw(st.integers(1, 3))):
            peers = [peer for peer in [*self.processes, self.outside] if self.runs[peer]]
            peer = self.pick(data, peers)
            if peer is None:
                return
            id = self.pick(data, self.runs[peer])
            self.runs[peer].remove(id)
            self.net.answer(peer, id)

    @rule(data=st.data())
    def wrong_answer(self, data: st.DataObject) -> None:
        """A result for another callee's call, for a finished one, or for one that never was."""
        self.read_all()
        peer = self.pick(data, [*self.processes, self.outside, *self.clients])
        own = {id for id, invocation in self.router.calls.in_flight.items() if invocation.callee is peer}
        id = self.pick(data, [*[id for id in self.made if id not in own], "never"])
        before = dict(self.router.calls.in_flight), self.outcomes.copy()
        self.net.answer(peer, id)
        self.read_all()
        assert (dict(self.router.calls.in_flight), self.outcomes) == before

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.read_all()
        open_ones = [id for id in self.made if not self.outcomes[id] and id not in self.cancelled]
        id = self.pick(data, [id for id in open_ones if not self.made[id][0].is_gone])
        if id is not None:
            self.net.send(self.made[id][0], "cancel", invocation_id=id)
            self.cancelled.add(id)

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.net.later(seconds)

    @rule(data=st.data(), count=st.integers(1, 150))
    def transport_takes(self, data: st.DataObject, count: int) -> None:
        self.read_all()
        peer = self.pick(data, [*self.processes, self.outside])
        self.net.write(peer, count)
        self.advance(peer)

    @rule()
    def transports_take_everything(self) -> None:
        self.read_all()
        for peer in [*self.processes, self.outside]:
            self.net.write(peer)
            self.advance(peer)

    # Laws that hold at every moment

    @invariant()
    def the_counters_are_what_a_recount_gives(self) -> None:
        table = list(self.router.calls.in_flight.values())
        for peer in self.router.peer_table.peers.values():
            assert peer.busy == sum(one.callee is peer for one in table)
            assert peer.abandoned == sum(one.callee is peer and one.is_abandoned for one in table)
            assert peer.outgoing == sum(one.caller is peer for one in table)
            assert peer.concurrency is None or peer.busy <= peer.concurrency
        for function in self.router.registry:
            queue = function.owner.waiting
            # Calls that come back from a dead process may wait beyond the bound: they were admitted already.
            back = sum(bool(one.line_end) for one in queue)
            assert function.waiting == sum(one.function is function for one in queue) <= WAITING + back

    @invariant()
    def what_is_held_is_what_the_calls_under_way_cost(self) -> None:
        table = list(self.router.calls.in_flight.values())
        for one in table:
            line = len(one.line) if len(one.line) > SHORT_LINE else 0
            assert one.held == line + (CALL_OVERHEAD if one.caller is None else 0)
            assert one.line or one.is_abandoned
        for peer in [*self.clients, self.outside, *self.processes]:
            assert peer.held == sum(one.held for one in table if one.origin is peer)
        registered = sum(account.held for account in self.router.registrations.quota)
        calls = sum(one.held for one in table) + CALL_OVERHEAD * len(table)
        assert self.router.calls.budget.used == registered + calls

    @invariant()
    def every_call_in_the_table_is_at_one_place(self) -> None:
        places: Counter[str] = Counter(one.id for one in self.router.calls.unresolved)
        owners = {function.owner for function in self.router.registry} | set(self.router.peer_table.owners.values())
        for owner in owners:
            places.update(one.id for one in owner.waiting)
        for one in self.router.calls.in_flight.values():
            assert not one.is_done
            assert (one.callee is not None) + places.pop(one.id, 0) == 1, one.id
            assert one.callee is None or not one.callee.is_gone
        assert not places

    @invariant()
    def a_worker_with_room_leaves_nobody_waiting(self) -> None:
        for function in self.router.registry:
            waits = any(one.function is function for one in function.owner.waiting)
            assert not waits or not any(peer.has_room for peer in function.providers)
            assert not waits or function.providers or function.owner.is_expected

    @invariant()
    def each_call_has_one_outcome_at_most_and_runs_twice_only_if_it_may(self) -> None:
        self.read_all()
        assert all(count == 1 for count in self.outcomes.values())
        for id, peers in self.seen.items():
            function = self.made[id][1] if id in self.made else "wide::again"
            assert len(peers) == 1 or function in IDEMPOTENT, f"{id} was started {len(peers)} times"
            assert len(peers) == len(set(peers)) <= 3

    @invariant()
    def calls_of_one_caller_reach_one_worker_process_in_order(self) -> None:
        for peer, ids in self.runs.items():
            if peer.generation == 1 == self.generations[peer.owner.name]:
                by_caller: defaultdict[tuple[Peer, str], list[int]] = defaultdict(list)
                for id in ids:
                    if id in self.made:
                        by_caller[self.made[id][:2]].append(int(id[1:]))
                assert all(numbers == sorted(numbers) for numbers in by_caller.values())

    def teardown(self) -> None:
        """Everybody's time runs out and everybody leaves: every call had its outcome, and nothing is left."""
        self.net.later(1000)
        self.read_all()
        for id in self.made:
            caller = self.made[id][0]
            assert self.outcomes[id] == 1 or id in self.cancelled or caller.is_gone, f"{id} never ended"
        for peer in [*self.processes, self.outside, *self.clients]:
            self.router.peer_table.detach(peer)
        for worker in WORKERS:
            self.router.peer_table.forget(worker)
        calls = self.router.calls
        assert (calls.in_flight, list(calls.unresolved), calls.starting) == ({}, [], set())
        assert (list(self.router.registry), self.router.peer_table.peers, self.router.peer_table.owners) == ([], {}, {})
        assert (calls.budget.used, calls.budget.peers) == (0, 0)
        calls.deadlines.expired(1e9)
        assert len(calls.deadlines) == 0


TestRouterLaws = RouterLaws.TestCase
TestRouterLaws.settings = settings(max_examples=100, stateful_step_count=50)


def test_an_invocation_that_no_transport_took_is_not_started() -> None:
    net = Net()
    worker, caller = net.serving("w", "f"), net.peer("caller")
    net.got(worker)
    net.call(caller, "f")
    [invocation] = net.router.calls.in_flight.values()
    assert isinstance(invocation, Invocation)
    assert not invocation.is_started
    net.write(worker, len(worker.outbox[0]))
    assert not invocation.is_started
    net.write(worker, 1)
    assert invocation.is_started
