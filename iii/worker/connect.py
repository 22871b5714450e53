"""`register_worker`: from an address to a connected worker, and who serves it when the script has ended."""

from __future__ import annotations

import os
import sys

from iii.errors import IIIError
from iii.worker.lifeline import serve_after_main
from iii.worker.options import DEFAULT_ENGINE_URL
from iii.worker.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from iii.worker.options import InitOptions


def register_worker(address: str | None = None, options: InitOptions | None = None) -> Worker:
    """Connect this process to the engine and return its worker.

    Without an address `III_URL` counts; under `iii dev` that is `stdio:`. IIIError when the address is one this SDK
    cannot reach.
    """
    address = address or os.environ.get("III_URL") or DEFAULT_ENGINE_URL
    if address != "stdio:":
        raise IIIError(
            f"this worker speaks over stdio only, and was told to connect to {address}; "
            "start it by `iii dev`, or leave III_URL to it"
        )
    return _register_stdio_worker(options)


def _register_stdio_worker(options: InitOptions | None) -> Worker:
    from iii.worker.stdio import LAUNCHER, StdioTransport, claimed_descriptors  # noqa: PLC0415 - this carrier only

    launcher = sys.modules.get(LAUNCHER)
    worker = Worker(StdioTransport(*claimed_descriptors()), options, address="stdio:")
    if launcher is not None:
        launcher.serve = worker.serve  # type: ignore[attr-defined]
    else:
        serve_after_main(worker.serve)
    worker.watch()
    return worker
