"""One JetStream stream as a table of rows with a lease. Speaks NATS through nats-py; everything runs on one event loop.

The subjects, below `iii.PROJECT.NAME`: `lease` has the record of who owns the rows, `r.PLACE` one row each. The stream
keeps the last message of each subject. Writes are fenced: each batch names the lease record that it was made under,
and the servers refuse it when there is a newer one.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from iii.nats_options import connect_options
from stdlib_workers.storage.changed_rows import StoredRow
from stdlib_workers.storage.errors import UNUSABLE, StorageFailure
from stdlib_workers.storage.jetstream_requirements import ClusterSettings

# Seconds for an answer of the servers; they answer within milliseconds, or there is no majority of them.
ANSWER_TIMEOUT = 2.0
# Seconds without a further row after which loading is tried anew.
LOAD_TIMEOUT = 5.0
RECONNECT_INTERVAL = 0.1
REPLICAS = 3
# Messages of one atomic batch (ADR-50).
MAX_ROWS = 1000
# What a message may cost beside its content: subject and headers.
MESSAGE_OVERHEAD = 1024
# Bytes that the stream may have for each byte of the rows: small rows cost more in messages than in SQLite.
ROOM = 3
# Error codes of JetStream: the fence is old; another batch is under way; no message; only one server; not enough of
# them, at this moment.
WRONG_SEQUENCE, BUSY, NOT_FOUND, NO_CLUSTER, NO_PEERS = 10071, 10164, 10037, 10074, 10005


class NoAnswer(Exception):
    """No majority of the servers has answered: what was sent may have been stored, or may still be."""


class Refused(Exception):
    """The servers have refused a message, and stored nothing of it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class LeaseRecord(msgspec.Struct):
    """Who owns the rows. `holder` stays the same when its process starts again; `process` does not."""

    holder: str
    process: str
    engine: str
    is_released: bool = False
    sequence: int = 0  # of the message that holds this record


class JetStream:
    """The stream of one standard worker. Make it, then `open` it on the loop that all calls come from."""

    def __init__(self, settings: ClusterSettings, name: str) -> None:
        self._settings = settings
        project = settings.name.replace(".", "_")
        self._subject = f"iii.{project}.{name}"
        self._stream = f"III_{project}_{name.upper()}"
        self._client = Client()

    @property
    def version(self) -> tuple[int, int]:
        """Version of the server that this connection is to."""
        version = self._client.connected_server_version
        return version.major, version.minor

    async def open(self) -> None:
        """Connect; return when a server has answered."""
        settings = self._settings
        await self._client.connect(
            **connect_options(settings),
            name=f"iii {settings.name} {settings.engine} {self._stream}",
            error_cb=_ignore,  # every request tells its own errors
            reconnect_time_wait=RECONNECT_INTERVAL,  # type: ignore[arg-type]  # seconds, fractions of them too
        )

    async def close(self) -> None:
        if self._client.is_connected:
            await self._client.close()

    async def make_stream(self) -> None:
        """Make the stream, unless there is one. Raises `Refused` and `NoAnswer`."""
        config = {
            "name": self._stream,
            "subjects": [f"{self._subject}.>"],
            "retention": "limits",
            "storage": "file",
            "num_replicas": REPLICAS,
            "max_msgs_per_subject": 1,
            "max_bytes": self._settings.max_bytes * ROOM,
            "discard": "new",  # a full stream drops nothing
            "allow_atomic": True,
            "allow_msg_ttl": True,
            "allow_direct": False,  # a read must not come from a server that is behind
        }
        answer = await self._ask("STREAM.INFO", {})
        if answer.get("error", {}).get("code") == 404:
            answer = await self._ask("STREAM.CREATE", config)
        _check(answer)
        if answer["config"]["num_replicas"] < REPLICAS or not answer["config"].get("allow_atomic"):
            raise Refused(NO_CLUSTER, f"the stream {self._stream} was made otherwise: delete it, or fix its config")

    async def read_lease(self) -> LeaseRecord | None:
        """Return the lease record, which may be an old one; None for none. Raises `NoAnswer`."""
        answer = await self._ask("STREAM.MSG.GET", {"last_by_subj": f"{self._subject}.lease"})
        if answer.get("error", {}).get("err_code") == NOT_FOUND:
            return None
        _check(answer)
        message = answer["message"]
        record = msgspec.json.decode(_from_base64(message["data"]), type=LeaseRecord)
        record.sequence = message["seq"]
        return record

    async def put_lease(self, record: LeaseRecord, expected: int) -> int:
        """Write the lease record over the one with sequence `expected`, 0 for none; return its sequence.

        Raises `Refused` (WRONG_SEQUENCE: there is another one) and `NoAnswer`.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        answer = await self._request(f"{self._subject}.lease", msgspec.json.encode(record), headers)
        _check(answer)
        return int(answer["seq"])

    async def write(self, rows: Sequence[StoredRow], fence: int) -> None:
        """Store all rows or none, if the lease record is still the one with this sequence.

        Raises `Refused` (WRONG_SEQUENCE: it is not), `NoAnswer`, and `StorageFailure` for what no batch can hold.
        """
        largest = max(rows, key=lambda row: len(row.content))
        room = self._client.max_payload - MESSAGE_OVERHEAD
        if len(rows) > MAX_ROWS or len(largest.content) > room:
            what = f"{len(rows)} rows at once" if len(rows) > MAX_ROWS else f"{len(largest.content)} bytes in a row"
            limit = f"{MAX_ROWS} rows and {room} bytes in a row (max_payload of the NATS servers)"
            raise StorageFailure(UNUSABLE, f"{what} are more than a cluster stores: {limit}")
        batch = os.urandom(12).hex()
        for number, row in enumerate(rows, 1):
            headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
            if number == 1:
                headers["Nats-Expected-Last-Subject-Sequence"] = str(fence)
                headers["Nats-Expected-Last-Subject-Sequence-Subject"] = f"{self._subject}.lease"
            if not row.content:
                headers["Nats-TTL"] = "1s"  # says that the row is deleted, and goes then
            subject = f"{self._subject}.r.{row.place}"
            if number < len(rows):
                await self._publish(subject, row.content, headers)
            else:
                _check(await self._request(subject, row.content, {**headers, "Nats-Batch-Commit": "1"}))

    async def load(self, sequence: int) -> list[StoredRow]:
        """Return all rows that were stored before the lease record with this sequence. Raises `NoAnswer`."""
        prefix = f"{self._subject}.r."
        rows: list[StoredRow] = []
        progress, is_complete = asyncio.Event(), asyncio.Event()

        async def take(message: Msg) -> None:
            progress.set()
            # Rows come in the order of their writing: with the lease record, or a later one, all before it are there.
            if message.metadata.sequence.stream >= sequence:
                is_complete.set()
            if message.subject.startswith(prefix) and message.data:
                rows.append(StoredRow(message.subject.removeprefix(prefix), message.data))

        subscribing = self._client.jetstream().subscribe(
            f"{self._subject}.>", stream=self._stream, cb=take, ordered_consumer=True
        )
        try:
            subscription = await asyncio.wait_for(subscribing, LOAD_TIMEOUT)
            try:
                while not is_complete.is_set():
                    progress.clear()
                    await asyncio.wait_for(progress.wait(), LOAD_TIMEOUT)
            finally:
                await subscription.unsubscribe()
        except (nats.errors.Error, TimeoutError) as error:
            raise NoAnswer(str(error)) from error
        return rows

    async def _ask(self, what: str, question: Mapping[str, Any]) -> dict[str, Any]:
        return await self._request(f"$JS.API.{what}.{self._stream}", json.dumps(question).encode(), {})

    async def _publish(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        if not self._client.is_connected:
            raise NoAnswer("no NATS server is connected")  # nats-py would keep it, and send it some time
        try:
            await self._client.publish(subject, data, headers=headers)
        except nats.errors.Error as error:
            raise NoAnswer(str(error)) from error

    async def _request(self, subject: str, data: bytes, headers: dict[str, str]) -> dict[str, Any]:
        if not self._client.is_connected:
            raise NoAnswer("no NATS server is connected")
        try:
            answer = await self._client.request(subject, data, ANSWER_TIMEOUT, headers=headers)
        except (nats.errors.Error, TimeoutError) as error:
            raise NoAnswer(str(error) or "no answer in time") from error
        return dict(msgspec.json.decode(answer.data, type=dict[str, Any]))


def _check(answer: Mapping[str, Any]) -> None:
    error = answer.get("error")
    if error is None:
        return
    # The stream has no leader, or JetStream is not ready; or it is to be made, and a server has not joined yet.
    if error.get("code") == 503 or error.get("err_code") == NO_PEERS:
        raise NoAnswer(error["description"])
    raise Refused(error.get("err_code", 0), error["description"])


def _from_base64(text: str) -> bytes:
    return bytes(msgspec.convert(text, bytes))


async def _ignore(_: Exception) -> None:
    """nats-py would log it."""
