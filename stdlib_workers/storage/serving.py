"""`serve`: run a standard worker on its data, wherever that is kept: in a file, in memory, or by the whole cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import msgspec

from iii import InitOptions, Worker, register_worker
from stdlib_workers.storage.database import Schema, lock
from stdlib_workers.storage.errors import Refusal
from stdlib_workers.storage.store import Store, end_process, look_after, open_store
from stdlib_workers.values import end_worker

Begin = Callable[[Worker, Store], None]


def serve(name: str, schema: Schema, begin: Begin, *, in_memory: bool) -> None:
    """Call `begin(worker, store)`, which registers the functions; in a cluster, once this engine owns the data.

    Ends the process when the data must not be used.
    """
    settings = None if in_memory else os.environ.get("III_CLUSTER")
    if settings is not None:
        _serve_cluster(name, schema, begin, settings)
        return
    store = open_store(name, schema, in_memory=in_memory)
    worker = register_worker(options=InitOptions(worker_name=name))
    begin(worker, store)
    look_after(worker, name, store)


def _serve_cluster(name: str, schema: Schema, begin: Begin, settings: str) -> None:
    from stdlib_workers.storage.jetstream_requirements import ClusterSettings
    from stdlib_workers.storage.replica import Replica  # a project on one machine loads nothing of it

    folder = Path(os.environ.get("III_PROJECT") or ".", ".iii")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    replica = Replica(msgspec.json.decode(settings, type=ClusterSettings), name, folder, end_process)
    try:
        replica.connect()
    except Refusal as refusal:
        end_worker(f"{name}: {refusal}", refusal.exit_code)
    worker = register_worker(options=InitOptions(worker_name=name))
    worker.before_stop(lambda _: None)  # has to be said before the worker is ready, and it is ready without the data

    def own() -> None:
        try:
            lock(folder / f"{name}.holder")  # for this process's life: while another one has it, that one may own
            store = Store(None, schema, replica=replica)
        except Refusal as refusal:
            sys.stderr.write(f"{name}: {refusal}\n")
            sys.stderr.flush()
            os._exit(refusal.exit_code)
        begin(worker, store)
        worker.before_stop(lambda _: store.close)

    Thread(target=own, name=f"iii-standby-{name}", daemon=True).start()
