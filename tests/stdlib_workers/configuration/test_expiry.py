"""`ttl_seconds` over a real store: what begins, stops and ends a count, and what outlives the process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iii import InvocationError, TriggerConfig
from stdlib_workers.configuration.events import Subscription, subscription_from
from stdlib_workers.configuration.expiry import Expiry
from stdlib_workers.configuration.files import Folder
from stdlib_workers.configuration.functions import Configurations
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store

TTL = 10.0


class Ground:
    """One configuration `app`, its bindings, and a clock."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.now = 1000.0
        self.bindings: list[Subscription] = []
        self.key_values = SqliteKeyValue(store)
        self.folder = folder
        self.configurations = Configurations(
            self.key_values, {}.get, "1", bindings=self.bindings, directory=Folder(folder)
        )
        self.expiry = self.next_process()

    def next_process(self, ttl: float = TTL) -> Expiry:
        self.expiry = Expiry(self.key_values.records, ttl, lambda: self.now)
        return self.expiry

    def bind(self, id: str | None = "app") -> Subscription:
        config = {} if id is None else {"configuration_id": id}
        bound = self.expiry.note(subscription_from(TriggerConfig("", "f", config)))
        self.bindings.append(bound)
        return bound

    async def register(self, id: str = "app") -> None:
        await self.configurations.register({"id": id, "name": "n", "description": "d", "schema": {}})

    async def look(self, later: float = 0) -> set[str]:
        """Look, `later` seconds later; return the ids that there are then."""
        self.now += later
        await self.expiry.look(self.bindings, self.configurations)
        return {each.id for each in await self.configurations.every()}


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    store = Store(None, KEY_VALUE_SCHEMA)
    yield Ground(store, tmp_path / "config")
    store.close()


async def test_the_last_binding_by_id_decides_and_its_file_goes_too(ground: Ground) -> None:
    await ground.register()
    first, second = ground.bind(), ground.bind()
    ground.bind(None)  # of all ids: does not count
    ground.bindings.remove(first)
    assert await ground.look(100) == {"app"}
    ground.bindings.remove(second)
    assert await ground.look() == {"app"}
    assert await ground.look(TTL - 1) == {"app"}
    assert (ground.folder / "app.yaml").exists()
    assert await ground.look(1) == set()
    assert not (ground.folder / "app.yaml").exists()


async def test_a_new_binding_stops_the_count(ground: Ground) -> None:
    await ground.register()
    ground.bindings.remove(ground.bind())
    await ground.look()
    again = ground.bind()
    assert await ground.look(TTL) == {"app"}
    ground.bindings.remove(again)
    assert await ground.look() == {"app"}
    assert await ground.look(TTL - 1) == {"app"}
    assert await ground.look(1) == set()


async def test_what_nobody_was_bound_to_stays(ground: Ground) -> None:
    await ground.register()
    ground.bind("other")
    assert await ground.look(1000) == {"app"}


async def test_a_count_goes_on_in_the_next_process(ground: Ground) -> None:
    await ground.register()
    ground.bindings.remove(ground.bind())
    await ground.look()
    ground.next_process()
    assert await ground.look(TTL - 1) == {"app"}
    ground.next_process()
    assert await ground.look(1) == set()


async def test_a_process_that_ended_before_it_saw_the_binding_go_has_not_forgotten_it(ground: Ground) -> None:
    await ground.register()
    ground.bindings.remove(ground.bind())
    ground.next_process()
    await ground.look()
    assert await ground.look(TTL) == set()


async def test_without_a_ttl_nothing_goes(ground: Ground) -> None:
    await ground.register()
    ground.next_process(0)
    ground.bindings.remove(ground.bind())
    assert await ground.look(1000) == {"app"}


async def test_one_that_is_bound_while_it_goes_stays(ground: Ground) -> None:
    await ground.register()
    ground.bindings.remove(ground.bind())
    await ground.look()
    stale: list[Subscription] = []
    ground.bind()
    ground.now += TTL
    await ground.expiry.look(stale, ground.configurations)
    assert await ground.look() == {"app"}
    ground.bindings.clear()
    await ground.look()
    assert await ground.look(TTL) == set()


async def test_a_file_that_cannot_be_removed_keeps_everything(ground: Ground) -> None:
    await ground.register()
    ground.bindings.remove(ground.bind())
    await ground.look()
    file = ground.folder / "app.yaml"
    file.unlink()
    file.mkdir()
    with pytest.raises(InvocationError, match="cannot be removed"):
        await ground.look(TTL)
    file.rmdir()
    assert await ground.look() == set()
