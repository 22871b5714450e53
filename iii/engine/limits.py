"""The bounds of the in-flight table. Pure."""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True):
    """Bounds; over one of them a new call is refused with `overloaded`. Results always pass."""

    depth: int = 32
    waiting_per_function: int = 1_000
    calls_per_peer: int = 16_384
    backlog: int = 8 * 1024 * 1024  # bytes sent to a peer that it has not read
    attempts: int = 3  # of one idempotent call whose workers keep dying
