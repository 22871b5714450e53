"""Test a project without processes: an engine in memory with the project's workers, the standard ones, and a clock.

The pytest fixture `iii` is an `Engine` with the workers of the nearest iii.toml, new for each test. The product does
not import this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import stdlib_workers

# Another package of the environment may have this name. It keeps it, and ours are found behind its own modules.
_FOLDER = str(Path(__file__).resolve().parents[2] / "stdlib_workers")
if _FOLDER not in stdlib_workers.__path__:
    stdlib_workers.__path__.append(_FOLDER)

from iii.testing.engine import Engine, project  # noqa: E402 - behind the line above, which finds what they import
from iii.testing.fakes import Fake  # noqa: E402 - as above
from iii.testing.flows import FlowRun  # noqa: E402 - as above

if TYPE_CHECKING:
    from iii.testing.http import HttpClient, StreamedResponse, WebSocket

__all__ = ["Engine", "Fake", "FlowRun", "HttpClient", "StreamedResponse", "WebSocket", "project"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from iii.testing import http  # only for those who need a name of it

    return getattr(http, name)
