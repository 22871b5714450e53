"""The process of `[workers.bridge]`: a worker of two engines, which passes calls from one to the other."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from threading import Event
from typing import NoReturn

from iii import InitOptions, RegistrationRejectedError, Worker, register_worker
from iii.declarations import load_declarations
from stdlib_workers.bridge import functions
from stdlib_workers.bridge.options import Options, options_from, worker_options
from stdlib_workers.values import OptionError


def main() -> None:
    """Start the worker; exit code 2 for a wrong option, 1 when the connection to the other engine is over."""
    try:
        url = os.environ.get("III_WS_URL", "")
        own_urls = (url, url.replace("//127.0.0.1:", "//localhost:")) if url else ()
        options = options_from(json.loads(os.environ.get("III_CONFIG") or "{}"), own_urls)
    except OptionError as error:
        _exit(str(error), 2)
    local = register_worker(options=InitOptions(worker_name="bridge"))
    remote = functions.RemoteEngine(options.url)
    offer(local, remote, options)
    # Functions of this project can be called before the other engine is there.
    local.ready()
    try:
        _connect(local, remote, options)
    except RegistrationRejectedError as error:
        _exit(f"bridge: {options.url} has a worker {options.name!r} already: {error}; set another name", 1)
    _exit(f"bridge: the connection to {options.url} has ended", 1)


def offer(local: Worker, remote: functions.RemoteEngine, options: Options) -> None:
    """Register the functions with which this project calls the other engine."""
    declared = load_declarations(Path(__file__).parent)
    for function_id, handler, description in (
        (functions.INVOKE, functions.invoke, "Call the other engine"),
        (functions.INVOKE_ASYNC, functions.invoke_async, "Call it without waiting"),
    ):
        handle = partial(handler, remote)
        local.register_function(function_id, handle, description=description, **declared.functions[function_id])
    for bridged in options.forward:
        description = f"{bridged.remote} of {options.url}"
        local.register_function(bridged.local, functions.forward_handler(bridged, remote), description=description)


def _connect(local: Worker, remote: functions.RemoteEngine, options: Options) -> None:
    """Be a worker of the other engine as long as the SDK keeps the connection or makes it again.

    RegistrationRejectedError when the other engine rejects this worker for good. The process ends with its own engine.
    """
    worker = register_worker(options.url, worker_options(options))
    for bridged in options.expose:
        handler = functions.expose_handler(bridged, local)
        worker.register_function(bridged.remote, handler, description=f"{bridged.local}, bridged")
    remote.connected.set_result(worker)
    ended = Event()
    worker.add_connection_state_listener(lambda state: ended.set() if state in ("failed", "disconnected") else None)
    sys.stderr.write(f"bridge: {options.url}\n")
    ended.wait()
    if worker.rejection is not None:
        raise worker.rejection


def _exit(text: str, code: int) -> NoReturn:
    sys.stderr.write(f"{text}\n")
    raise SystemExit(code)


main()
