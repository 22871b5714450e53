"""Test a project without processes: an engine in memory with the project's workers, the standard ones, and a clock.

The pytest fixture `iii` is an `Engine` with the workers of the nearest iii.toml, new for each test. The product does
not import this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iii.testing.engine import Engine, project
from iii.testing.fakes import Fake

if TYPE_CHECKING:
    from iii.testing.http import HttpClient, StreamedResponse, WebSocket

__all__ = ["Engine", "Fake", "HttpClient", "StreamedResponse", "WebSocket", "project"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from iii.testing import http  # only for those who need a name of it

    return getattr(http, name)
