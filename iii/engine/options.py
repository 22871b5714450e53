"""How a run of the engine differs from the plain one: the options of `iii dev`. Pure; made by `start.py`."""

from __future__ import annotations

from msgspec import Struct


class Options(Struct, frozen=True):
    """`names` are the workers to start, all if there are none."""

    names: tuple[str, ...] = ()
    is_watching: bool = True
    profile: str | None = None
    debug: str | None = None  # a worker in a debugger: no deadline passes and nothing reloads
    color: str = "auto"
    is_json: bool = False
