"""The engine: routes calls between peers and supervises the workers of a project.

Workers find here what the public SDK's module of this name has: ids of the engine's functions and trigger types.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["EngineFunctions", "EngineTriggers", "RemoteFunctionHandler"]

RemoteFunctionHandler = Callable[[Any], Awaitable[Any]]


class EngineFunctions:
    """Ids of functions that the engine itself offers."""

    LIST_FUNCTIONS = "engine::functions::list"
    INFO_FUNCTIONS = "engine::functions::info"
    LIST_WORKERS = "engine::workers::list"
    INFO_WORKERS = "engine::workers::info"
    LIST_TRIGGERS = "engine::triggers::list"
    INFO_TRIGGERS = "engine::triggers::info"
    LIST_REGISTERED_TRIGGERS = "engine::registered-triggers::list"
    INFO_REGISTERED_TRIGGERS = "engine::registered-triggers::info"
    REGISTER_WORKER = "engine::workers::register"


class EngineTriggers:
    """Ids of trigger types that the engine or its observability worker provides."""

    FUNCTIONS_AVAILABLE = "engine::functions-available"
    LOG = "log"
