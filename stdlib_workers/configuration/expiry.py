"""`ttl_seconds`: a configuration to which nobody is bound any more goes after a while.

It counts from the end of the last binding with its `configuration_id`; a new one stops the count. A configuration that
never had such a binding stays. Times are kept with the data, so that a restart of this worker neither forgets a
count nor begins it anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from iii import InvocationError, Logger
from stdlib_workers.configuration.entries import ID
from stdlib_workers.configuration.events import Subscription
from stdlib_workers.configuration.functions import Configurations
from stdlib_workers.storage import UNUSABLE, SqliteRecords
from stdlib_workers.values import decode, encode

KIND = "configuration expiry"
# Seconds between two looks.
LOOK_INTERVAL = 0.5


class Expiry:
    """The counts. `clock`: seconds since the epoch, which the next process has as well."""

    def __init__(self, records: SqliteRecords, ttl: float, clock: Callable[[], float]) -> None:
        self._records = records
        self._ttl = ttl
        self._clock = clock
        self._log = Logger(service_name="configuration")
        # By id, of those that had a binding: when it goes, None while there is one.
        self._deadlines: dict[str, float | None] = {id: decode(row) for id, row in records.read(KIND).result().items()}

    def note(self, subscription: Subscription) -> Subscription:
        """Take a binding that is being made. Safe on any thread."""
        id = subscription.configuration_id
        if self._ttl and id is not None and ID.fullmatch(id) and id not in self._deadlines:
            self._set(id, None)
        return subscription

    async def watch(self, bindings: Iterable[Subscription], configurations: Configurations) -> None:
        """Look for configurations that have to go, until the store is closed."""
        while self._ttl:
            try:
                await self.look(bindings, configurations)
            except InvocationError as error:
                if error.code == UNUSABLE:
                    return
                self._log.warn(f"no configuration could be removed: {error.message}")
            await asyncio.sleep(LOOK_INTERVAL)

    async def look(self, bindings: Iterable[Subscription], configurations: Configurations) -> None:
        """Begin, stop and end counts, once."""
        bound = {self.note(each).configuration_id for each in bindings}
        now = self._clock()
        for id, deadline in tuple(self._deadlines.items()):
            if id in bound:
                if deadline is not None:
                    self._set(id, None)
            elif deadline is None:
                self._set(id, now + self._ttl)
            elif now >= deadline and await configurations.expire(id):
                del self._deadlines[id]
                await self._records.remove(KIND, id)
                self._log.info(f"{id} is removed: nobody has been bound to it for {self._ttl:g} s")

    def _set(self, id: str, deadline: float | None) -> None:
        self._deadlines[id] = deadline
        self._records.put(KIND, id, encode(deadline))
