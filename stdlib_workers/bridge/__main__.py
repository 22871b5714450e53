"""`[workers.bridge]`: be a worker of two engines, and pass calls from one to the other. Run by the engine."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from threading import Event
from typing import NoReturn

from iii import InitOptions, RegistrationRejectedError, Worker, register_worker
from stdlib_workers.bridge.functions import (
    INVOKE,
    INVOKE_ASYNC,
    REQUEST,
    exposing,
    forwarding,
    invoke,
    invoke_async,
)
from stdlib_workers.bridge.options import Options, options_from
from stdlib_workers.bridge.remote import Remote, identity_of
from stdlib_workers.values import OptionError


def main() -> None:
    """Start the worker; exit code 2 for a wrong option, 1 when the other engine does not want us."""
    try:
        options = options_from(json.loads(os.environ.get("III_CONFIG") or "{}"), _own_urls())
    except OptionError as error:
        _leave(str(error), 2)
    local = register_worker(options=InitOptions(worker_name="bridge"))
    remote = Remote(options.url)
    offer(local, remote, options)
    # What this project calls is there, whether or not the other engine is.
    local.ready()
    try:
        _connect(local, remote, options)
    except RegistrationRejectedError as error:
        _leave(f"bridge: {options.url} has a worker {options.name!r} already: {error}; set another name", 1)


def offer(local: Worker, remote: Remote, options: Options) -> None:
    """Register what this project may call."""
    local.register_function(
        INVOKE, partial(invoke, remote), description="Call the other engine", request_format=REQUEST
    )
    local.register_function(
        INVOKE_ASYNC, partial(invoke_async, remote), description="Call it without waiting", request_format=REQUEST
    )
    for passage in options.forward:
        description = f"{passage.remote} of {options.url}"
        local.register_function(passage.local, forwarding(passage, remote), description=description)


def _connect(local: Worker, remote: Remote, options: Options) -> NoReturn:
    """Be a worker of the other engine until it refuses us for good; the process ends with its own engine."""
    worker = register_worker(options.url, identity_of(options))
    for passage in options.expose:
        worker.register_function(passage.remote, exposing(passage, local), description=f"{passage.local}, bridged")
    remote.connected.set_result(worker)
    refused = Event()
    worker.add_connection_state_listener(lambda _: refused.set() if worker.rejection is not None else None)
    sys.stderr.write(f"bridge: {options.url}\n")
    refused.wait()
    assert worker.rejection is not None
    raise worker.rejection


def _own_urls() -> tuple[str, ...]:
    url = os.environ.get("III_WS_URL", "")
    return (url, url.replace("//127.0.0.1:", "//localhost:")) if url else ()


def _leave(text: str, code: int) -> NoReturn:
    sys.stderr.write(f"{text}\n")
    raise SystemExit(code)


main()
