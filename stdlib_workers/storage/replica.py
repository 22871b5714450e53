"""The home of a store that several engines share: who owns it runs it in memory, and a JetStream stream keeps its rows.

Theory of operation. One process of the cluster, the owner, holds the lease: a record that it renews each second. A
transaction of the owner is committed in memory when the servers have stored its rows, in one batch that they refuse if
the lease record is another one by then. So an owner that was overtaken while it stood still writes nothing.

The owner answers nothing from memory once LEASE seconds have passed since it began to renew the lease for the last
time. A process that waits for the lease takes it when the record has been the same for TAKEOVER seconds by its own
clock: no two clocks are compared, and the old owner has fallen silent before there is a new one.

A batch without an answer may be stored, or be stored later. The owner renews the lease until it hears that it has: the
batch is stored by then or never will be. It sends the rows again; to store a row twice is to store it once.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any, TypeVar

import msgspec

from stdlib_workers.storage.changed_rows import ChangedRows, StoredRow
from stdlib_workers.storage.database import PAGE_BYTES
from stdlib_workers.storage.errors import FULL, FileGone, Refusal, StorageFailure, no_quorum
from stdlib_workers.storage.jetstream import BUSY, NO_CLUSTER, WRONG_SEQUENCE, JetStream, LeaseRecord, NoAnswer, Refused
from stdlib_workers.storage.jetstream_requirements import ClusterSettings, unmet_requirement

T = TypeVar("T")

# Seconds. TAKEOVER is longer by what a clock may run too slowly, and a process may take to look at it.
RENEWAL_INTERVAL, LEASE, TAKEOVER = 1.0, 3.0, 5.0
# Seconds between two looks at the lease of another process, and between two tries without an answer.
LOOK_INTERVAL, RETRY_INTERVAL, BUSY_INTERVAL = 0.25, 0.1, 0.002
# Seconds after which callers hear that no majority of the servers answers: an election takes 4 to 9.
QUORUM_TIMEOUT = 10.0
# Seconds for a server to answer at the start, and for a monitoring page.
CONNECT_TIMEOUT, MONITOR_TIMEOUT = 5.0, 2.0
EXIT_USAGE = 2


class LeaseLost(FileGone):
    """Another process owns the rows: what this one has in memory is no longer true."""

    def __init__(self, text: str, *, may_be_stored: bool = False) -> None:
        super().__init__(text)
        self.may_be_stored = may_be_stored


class Replica:
    """One process that owns a store's rows, or waits to. `folder` is `.iii`; `on_lost` hears that it owns them no more.

    Its own thread runs an event loop; the methods that are not coroutines are for other threads, and block.
    """

    def __init__(
        self, settings: ClusterSettings, name: str, folder: Path, on_lost: Callable[[LeaseLost], None]
    ) -> None:
        self._settings = settings
        self._name = name
        self._stream = JetStream(settings, name)
        self._on_lost = on_lost
        self._record = LeaseRecord(_holder(folder / f"{name}.holder"), os.urandom(8).hex(), settings.engine)
        self._sequence = 0  # of the lease record
        self._valid_until = 0.0
        self._is_in_doubt = False  # something that was sent may be stored later
        self._is_lost = False
        self._writing = asyncio.Lock()  # two fenced writes at once: one would be refused
        self._renewing: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name=f"iii-replica-{name}", daemon=True)
        self._thread.start()

    @property
    def is_serving(self) -> bool:
        """Whether what is in memory is true: no other process can own the rows yet."""
        return monotonic() < self._valid_until

    # For other threads

    def connect(self) -> None:
        """Reach the servers and check them, within a few seconds. Refusal (exit code 2): nothing may be kept there."""
        self._wait(self._connect())

    def open(self, connection: sqlite3.Connection) -> None:
        """Wait until this process owns the rows, and put them into an empty database. Refusal as `connect`."""
        connection.execute(f"PRAGMA max_page_count = {self._settings.max_bytes // PAGE_BYTES}")
        self._changed = ChangedRows(connection)
        rows = self._wait(self._acquire())
        if rows:
            self._changed.load(rows)
        else:
            self._wait(self._write(self._changed.whole()))
            self._changed.committed()

    def save(self, on_delay: Callable[[], bool]) -> None:
        """Store what the transaction has changed, all or nothing, before its commit.

        While no majority of the servers answers, `on_delay` is called again and again; it returns False to give up.
        Raises `LeaseLost`, and `StorageFailure` for what cannot be stored, or is not known to be true any more.
        """
        rows = self._changed.take()
        if not rows:
            if not self.is_serving:
                raise no_quorum(may_be_stored=False)
            return
        writing = self._start(self._write(rows))
        wait([writing], QUORUM_TIMEOUT)
        while not wait([writing], LOOK_INTERVAL).done:
            if not on_delay():
                raise LeaseLost(f"{self._name} ends without a majority of the NATS servers", may_be_stored=True)
        writing.result()

    def committed(self) -> None:
        """The transaction is committed in memory, too."""
        self._changed.committed()

    def close(self) -> None:
        """Give the lease back, so that another process need not wait, and disconnect."""
        if self._loop.is_closed():
            return
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._start(work).result()

    # Becoming the owner

    async def _connect(self) -> None:
        self._opening = asyncio.ensure_future(self._stream.open())
        done, _ = await asyncio.wait({self._opening}, timeout=CONNECT_TIMEOUT)
        if done:
            await self._check()
            await self._has_stream()
        else:
            sys.stderr.write(f"iii: {self._name}: no NATS server of [cluster] answers; trying again\n")

    async def _check(self) -> None:
        await self._opening
        monitors = self._settings.monitors
        sync = await asyncio.gather(*(asyncio.to_thread(_syncs_always, monitor) for monitor in monitors))
        unmet = unmet_requirement(self._stream.version, self._settings, sync)
        if unmet is not None:
            raise Refusal(f"its data cannot be kept in the cluster: {unmet}", EXIT_USAGE)

    async def _acquire(self) -> list[StoredRow]:
        await self._check()
        while not await self._has_stream():
            await asyncio.sleep(LOOK_INTERVAL)
        seen, seen_at = 0, 0.0
        while True:
            try:
                record = await self._stream.read_lease()
                if record is not None and record.sequence != seen:
                    seen, seen_at = record.sequence, monotonic()
                if self._may_take(record, seen_at):
                    await self._take(seen)
                    self._renewing = asyncio.ensure_future(self._renew_again_and_again())
                    return await self._load()
            except (NoAnswer, Refused):
                pass  # no majority, or another process was first
            await asyncio.sleep(LOOK_INTERVAL)

    async def _has_stream(self) -> bool:
        try:
            await self._stream.make_stream()
        except NoAnswer:
            return False
        except Refused as refused:
            if refused.code == NO_CLUSTER and "non-clustered" in str(refused):
                text = "its data cannot be kept in the cluster: one NATS server is none; run three, as docs/cluster.md"
                raise Refusal(text, EXIT_USAGE) from None
            raise Refusal(f"its data cannot be kept in the cluster: {refused}", EXIT_USAGE) from None
        return True

    def _may_take(self, record: LeaseRecord | None, seen_at: float) -> bool:
        if record is None or record.is_released or record.holder == self._record.holder:
            return True  # of the same holder there is one process at a time: the other one has ended
        return monotonic() - seen_at >= TAKEOVER

    async def _take(self, expected: int) -> None:
        began = monotonic()
        self._sequence = await self._stream.put_lease(self._record, expected)
        self._valid_until = began + LEASE

    async def _load(self) -> list[StoredRow]:
        while True:
            try:
                return await self._stream.load(self._sequence)
            except NoAnswer:
                await asyncio.sleep(RETRY_INTERVAL)

    # Being the owner

    async def _renew_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(RENEWAL_INTERVAL)
            async with self._writing:
                if self._is_lost:
                    return  # a write has found that, and told `on_lost`
                try:
                    await self._renew()
                except LeaseLost as lost:
                    self._on_lost(lost)
                    return
                except NoAnswer:
                    pass  # what is in memory is not true for ever: `is_serving`

    async def _renew(self) -> None:
        """Write the lease record anew. Nothing that was sent before can be stored after that."""
        if self._is_lost:
            raise LeaseLost(f"another engine owns {self._name}")
        self._is_in_doubt = True
        while True:
            try:
                await self._take(self._sequence)
                self._is_in_doubt = False
                return
            except Refused as refused:
                if refused.code != WRONG_SEQUENCE:
                    raise NoAnswer(str(refused)) from refused
            record = await self._stream.read_lease()
            if record is None or record.sequence <= self._sequence:
                await asyncio.sleep(RETRY_INTERVAL)  # an old answer
            elif record.process != self._record.process:
                raise self._lost(f"is owned by engine {record.engine} now")
            else:
                self._sequence = record.sequence  # an earlier renewal, which was stored without an answer

    def _lost(self, text: str, *, may_be_stored: bool = False) -> LeaseLost:
        self._is_lost = True
        self._valid_until = 0.0
        return LeaseLost(f"{self._name} {text}", may_be_stored=may_be_stored)

    async def _write(self, rows: Sequence[StoredRow]) -> None:
        may_be_stored = False
        async with self._writing:
            while True:
                try:
                    if self._is_in_doubt:
                        await self._renew()
                    return await self._stream.write(rows, self._sequence)
                except LeaseLost as lost:
                    lost.may_be_stored = may_be_stored
                    raise
                except NoAnswer:
                    # Of the rows, or of the renewal: then they were not sent this time.
                    may_be_stored |= not self._is_in_doubt
                    self._is_in_doubt = True
                    await asyncio.sleep(RETRY_INTERVAL)
                except Refused as refused:
                    if refused.code == WRONG_SEQUENCE:
                        raise self._lost("is owned by another engine now", may_be_stored=may_be_stored) from None
                    if refused.code != BUSY:
                        raise StorageFailure(FULL, f"the NATS servers store no more: {refused}") from None
                    await asyncio.sleep(BUSY_INTERVAL)

    async def _close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
        self._valid_until = 0.0
        if self._sequence and not self._is_lost:
            self._record.is_released = True
            try:
                async with asyncio.timeout(RENEWAL_INTERVAL), self._writing:
                    await self._stream.put_lease(self._record, self._sequence)
            except (NoAnswer, Refused, TimeoutError):
                pass  # then the next owner has to wait
        await self._stream.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _holder(file: Path) -> str:
    """Return the name of this holder: the same for each process that keeps its lock in the same folder."""
    try:
        random = file.read_text()
    except FileNotFoundError:
        random = os.urandom(8).hex()
        file.write_text(random)
    return f"{random} {os.uname().nodename} {file.resolve()}"  # a copied folder is another holder


def _syncs_always(monitor: str) -> bool | None:
    try:
        with urllib.request.urlopen(f"{monitor.rstrip('/')}/jsz", timeout=MONITOR_TIMEOUT) as answer:
            described = msgspec.json.decode(answer.read(1_000_000), type=dict[str, Any])
    except (OSError, ValueError, msgspec.DecodeError, urllib.error.URLError):
        return None
    return bool(described.get("config", {}).get("sync_always"))
