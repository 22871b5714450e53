"""What NATS servers must be and do before anything is kept there: checked at the start, and refused otherwise. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

# Tested with this version. Older ones lack atomic batches, or lose the fence of one.
LEAST_VERSION = (2, 15)
# Two servers have no majority without each other.
LEAST_SERVERS = 3


class ClusterSettings(msgspec.Struct, frozen=True):
    """What of `[cluster]` in iii.toml a worker needs that keeps its data there; III_CLUSTER holds it as JSON."""

    servers: tuple[str, ...]
    name: str
    engine: str
    max_bytes: int
    monitors: tuple[str, ...] = ()
    sync_always: bool = False
    credentials: str | None = None
    user: str | None = None
    password: str | None = None
    token: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None


def unmet_requirement(version: tuple[int, int], settings: ClusterSettings, sync: Sequence[bool | None]) -> str | None:
    """Return a sentence about what is not as it must be, with the way out; None when all is.

    `sync`: whether each of `settings.monitors` says that its server syncs every write, None where it did not answer.
    """
    if version < LEAST_VERSION:
        running, least = (".".join(map(str, each)) for each in (version, LEAST_VERSION))
        return f"the NATS server is version {running}, and lasting data needs {least}: upgrade the servers"
    for monitor, is_always in zip(settings.monitors, sync, strict=True):
        if is_always is False:
            return (
                f"the NATS server of {monitor} does not sync every write, and a power cut would lose data: "
                "set `jetstream { sync_interval: always }` on every server"
            )
    if settings.sync_always:
        return None
    if not settings.monitors:
        return (
            "nothing says that the NATS servers sync every write: set `jetstream { sync_interval: always }` on each, "
            "and name their monitoring addresses in [cluster] monitors, or declare sync_always = true"
        )
    if sum(each is True for each in sync) * 2 <= len(settings.monitors):
        return "too few of [cluster] monitors answer to know that the NATS servers sync every write: start the servers"
    return None
