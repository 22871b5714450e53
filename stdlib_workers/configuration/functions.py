"""The functions `configuration::*`: payload in, result out, and what a file says instead of a caller.

The store decides in order: schemas, digests of files and versions are compared where the write is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from iii import InvocationError
from stdlib_workers.configuration.entries import Configuration, check_id, configuration_from
from stdlib_workers.configuration.events import Subscription, outbox_entry
from stdlib_workers.configuration.expansion import Expansion, Lookup, TooLong
from stdlib_workers.configuration.owners import ask_owners
from stdlib_workers.configuration.validation import check_schema, check_value
from stdlib_workers.events import TOPIC, Bindings, Caller, Outbox, current_trace
from stdlib_workers.storage import Change, Entry, Pending, SqliteKeyValue
from stdlib_workers.values import Payload, malformed

BUCKET = "configurations"
MAX_CONFIGURATIONS = 1024


class Directory(Protocol):
    """Where files say the same as the store. All of it runs on the storage thread."""

    def write(self, configuration: Configuration) -> str:
        """Write its file; return the file's digest."""
        ...

    def digest(self, id: str) -> str | None:
        """Return the digest of the file as it is now, None when there is none."""
        ...

    def remove(self, id: str) -> None:
        """Remove its file, if there is one."""
        ...


class Configurations:
    """All functions, over one store."""

    def __init__(
        self,
        key_values: SqliteKeyValue,
        environment: Lookup,
        engine_version: str,
        *,
        bindings: Bindings[Subscription] | Sequence[Subscription] = (),
        caller: Caller | None = None,
        outbox: Outbox | None = None,
        directory: Directory | None = None,
    ) -> None:
        self._key_values = key_values
        self._environment = environment
        self._engine_version = engine_version
        self._bindings = bindings
        self._caller = caller
        self._outbox = outbox
        self._directory = directory
        key_values.watch(self._on_change)

    # Functions

    async def register(self, payload: Any) -> dict[str, Any]:
        """Register a configuration, or renew its schema. A stored value stays unless `initial_value` replaces it."""
        fields = Payload("configuration::register", payload)
        id = check_id(fields.string("id"))
        name, description = fields.string("name"), fields.string("description")
        schema, initial, metadata = fields.value("schema"), fields.get("initial_value"), fields.get("metadata")
        check_schema(id, schema)
        if initial is not None:
            self._check(id, schema, initial)
        if (
            await self._key_values.get(BUCKET, id) is None
            and await self._key_values.count(BUCKET) >= MAX_CONFIGURATIONS
        ):
            text = f"there are {MAX_CONFIGURATIONS} configurations, which is the limit; {id} is not registered"
            raise InvocationError("TOO_MANY_CONFIGURATIONS", text)

        def renewed(stored: Configuration | None) -> Configuration:
            value = initial if initial is not None or stored is None else stored.value
            return Configuration(id, name, description, schema, value, metadata, stored.file if stored else None)

        written = await self._write(id, renewed)
        return {**written.view(), "value": written.value}

    async def set(self, payload: Any) -> dict[str, Any]:
        """Replace a value; the old and the new one are returned with ${VAR} as it is."""
        fields = Payload("configuration::set", payload)
        id, value = check_id(fields.string("id")), fields.value("value")
        old: list[Any] = []
        await self._ask_owners(id, value)  # first: its reasons say more than the schema's

        def changed(stored: Configuration | None) -> Configuration:
            known = self._judge(id, stored, value)
            old[:] = [known.value]
            return replace(known, value=value)

        await self._write(id, changed)
        return {"old_value": old[0], "new_value": value}

    async def get(self, payload: Any) -> dict[str, Any]:
        """Return a value with its variables, or with `raw` as it is stored."""
        fields = Payload("configuration::get", payload)
        raw = fields.get("raw")
        if not isinstance(raw, bool | None):
            raise malformed("configuration::get", f"raw must be true or false, got {raw!r:.60}")
        found = await self._find(fields.string("id"))
        if raw or found.value is None:
            return {"id": found.id, "value": found.value}
        expansion = self._expanded(found.id, found.value)
        if expansion.missing:
            text = f"{found.id}: no value for {', '.join(expansion.missing[:10])}; set it, or write ${{NAME:default}}"
            raise InvocationError("EXPAND_FAILED", text)
        if found.schema is not None:
            check_value(found.id, found.schema, expansion.value)
        return {"id": found.id, "value": expansion.value}

    async def list(self, _: Any) -> dict[str, Any]:
        """List all configurations by id, without their values."""
        return {"configurations": [each.view() for each in await self.every()]}

    async def schema(self, payload: Any) -> dict[str, Any]:
        """Return a configuration without its value."""
        return (await self._find(Payload("configuration::schema", payload).string("id"))).view()

    # What files say

    async def every(self) -> Sequence[Configuration]:
        """Return every configuration, by id."""
        rows = await self._key_values.list(BUCKET)
        found = [configuration_from(row.key, row.entry) for row in rows]
        return sorted((each for each in found if each is not None), key=lambda each: each.id)

    async def take_file(self, told: Configuration) -> None:
        """Take what a file says; its `file` is the file's digest.

        InvocationError for a value that is refused: then nothing has changed.
        """
        check_id(told.id)
        seen = configuration_from(told.id, await self._key_values.get(BUCKET, told.id))
        if seen is None and await self._key_values.count(BUCKET) >= MAX_CONFIGURATIONS:
            raise InvocationError("TOO_MANY_CONFIGURATIONS", f"there are {MAX_CONFIGURATIONS}, which is the limit")
        expansion = self._expanded(told.id, told.value)
        if expansion.missing:
            raise InvocationError("EXPAND_FAILED", f"no value for {', '.join(expansion.missing[:10])}")
        if seen is None or seen.value != told.value:
            await self._ask_owners(told.id, told.value)
        directory = self._directory
        assert directory is not None

        def decide(entry: Entry | None) -> bytes:
            stored = configuration_from(told.id, entry)
            if directory.digest(told.id) != told.file:
                raise _Superseded  # the file was changed again since: the next look takes that
            if stored is not None and stored.schema is not None:
                check_value(told.id, stored.schema, expansion.value)
            return replace(told, schema=stored.schema if stored else None).to_bytes()

        with suppress(_Superseded):
            await self._update(told.id, decide, is_silent_if_same=True)

    async def expire(self, id: str) -> bool:
        """Remove a configuration and its file, unless there is a binding to it alone by now; tell whether it is gone.

        InvocationError `ADAPTER_ERROR` for a file that cannot be removed: then nothing has changed.
        """
        is_bound = False

        def decide(entry: Entry | None) -> None:
            nonlocal is_bound
            is_bound = any(each.configuration_id == id for each in self._bindings)
            if entry is None or is_bound:
                raise _Superseded
            if self._directory is not None:
                try:
                    self._directory.remove(id)
                except OSError as error:
                    raise InvocationError("ADAPTER_ERROR", f"{id}: its file cannot be removed: {error}") from None

        with suppress(_Superseded):
            await self._update(id, decide)
        return not is_bound

    async def forget_file(self, id: str) -> None:
        """Remove a configuration whose file is gone."""
        directory = self._directory
        assert directory is not None

        def decide(entry: Entry | None) -> None:
            if entry is None or directory.digest(id) is not None:
                raise _Superseded

        with suppress(_Superseded):
            await self._update(id, decide)

    # Checks

    async def _find(self, id: str) -> Configuration:
        found = configuration_from(id, await self._key_values.get(BUCKET, id))
        if found is None:
            raise InvocationError("NOT_FOUND", f"there is no configuration {id[:80]}; `iii config list` shows them")
        return found

    def _judge(self, id: str, stored: Configuration | None, value: Any) -> Configuration:
        """Return the configuration if it may have this value."""
        if stored is None:
            text = f"there is no configuration {id}; its owner registers it with configuration::register"
            raise InvocationError("NOT_REGISTERED", text)
        if stored.schema is None:
            text = f"{id} is known from its file only: it has no schema until its owner registers it"
            raise InvocationError("SCHEMA_UNAVAILABLE", text)
        self._check(id, stored.schema, value)
        return stored

    def _check(self, id: str, schema: Any, value: Any) -> None:
        """Check a value with its variables. One that lacks a variable is checked when it is read."""
        expansion = self._expanded(id, value)
        if not expansion.missing:
            check_value(id, schema, expansion.value)

    def _expanded(self, id: str, value: Any) -> Expansion:
        try:
            return Expansion(value, self._environment, self._engine_version)
        except TooLong as error:
            raise InvocationError("VALUE_TOO_LARGE", f"{id}: {error}") from None

    def _shown(self, value: Any) -> Any:
        """Return a value for an event: with those variables that there are."""
        try:
            return Expansion(value, self._environment, self._engine_version).value
        except TooLong:
            return value

    async def _ask_owners(self, id: str, value: Any) -> None:
        """Let the owners of `id` refuse a value. One that lacks a variable is checked when it is read."""
        expansion = self._expanded(id, value)
        if self._caller is not None and not expansion.missing:
            await ask_owners(self._caller, self._bindings, id, expansion.value)

    # Writes

    async def _write(self, id: str, decide: Callable[[Configuration | None], Configuration]) -> Configuration:
        """Store what `decide` makes of a configuration, and its file; return it."""
        written: list[Configuration] = []

        def decide_bytes(entry: Entry | None) -> bytes:
            configuration = decide(configuration_from(id, entry))
            configuration.to_bytes()  # refused before there is a file of it
            if self._directory is not None:
                try:
                    configuration = replace(configuration, file=self._directory.write(configuration))
                except OSError as error:
                    raise InvocationError("ADAPTER_ERROR", f"{id}: its file cannot be written: {error}") from None
            written[:] = [configuration]
            return configuration.to_bytes()

        await self._update(id, decide_bytes)
        return written[0]

    def _update(
        self, id: str, decide: Callable[[Entry | None], bytes | None], *, is_silent_if_same: bool = False
    ) -> Pending[Change]:
        trace = current_trace()  # here: what announces the change runs on the storage thread

        def announce(change: Change) -> Sequence[tuple[str, bytes]]:
            old, new = configuration_from(id, change.old), configuration_from(id, change.new)
            if is_silent_if_same and old is not None and new is not None and old.says_the_same_as(new):
                return ()  # its file was written anew, with what it said before
            entry = outbox_entry(old, new, self._bindings, self._shown, trace)
            return () if entry is None else ((TOPIC, entry),)

        return self._key_values.update(BUCKET, id, decide, announce)

    def _on_change(self, change: Change) -> None:
        if change.journal and self._outbox is not None:
            self._outbox.offer(list(change.journal))


class _Superseded(Exception):
    """What a write was decided for is another one by now: nothing is written."""
