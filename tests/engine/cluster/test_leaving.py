"""An engine that is about to stop tells the others so once, and offers nothing to them after that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from iii.engine.cluster.cluster import OFFER_DEBOUNCE, Cluster
from iii.engine.config.spec import ClusterSpec
from tests.support.engine_pair import Engine
from tests.support.nats_servers import NatsServers

BOUND = 20.0


async def joined(urls: list[str], name: str) -> tuple[Engine, Cluster]:
    engine = Engine(name)
    spec = ClusterSpec(tuple(urls), "shop", name)
    cluster = Cluster(spec, engine.router, version="1", turn=lambda: None, warn=lambda _: None)
    await cluster.start()
    return engine, cluster


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(BOUND):
        while not look():
            await asyncio.sleep(0.005)  # between two looks


def test_what_was_about_to_be_offered_is_not_when_the_engine_leaves(tmp_path: Path) -> None:
    servers = NatsServers(tmp_path, 1)

    async def run() -> None:
        a, there = await joined(servers.urls, "a")
        b, leaving = await joined(servers.urls, "b")
        try:
            b.serving("math", "math::add")
            leaving.on_functions_changed()
            await until(lambda: a.router.registry.find("default", "math::add"))
            leaving.on_functions_changed()
            leaving.leave_gently()
            # Timers run in the order of their times: what was about to be offered comes before this.
            has_passed = asyncio.Event()
            asyncio.get_running_loop().call_later(2 * OFFER_DEBOUNCE, has_passed.set)
            await has_passed.wait()
            (remote,) = leaving.remotes.values()
            before = remote.link.unsent_bytes
            remote.offer({})
            assert remote.link.unsent_bytes == before, "a was offered something again"
            await until(lambda: not a.router.registry.find("default", "math::add"))
        finally:
            await leaving.stop()
            await there.stop()

    try:
        asyncio.run(run())
    finally:
        servers.close()
