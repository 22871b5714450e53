"""`[workers.observability]`: open the archive and serve. Run by the engine."""

from __future__ import annotations

import os

from iii import InitOptions, register_worker
from stdlib_workers.observability.config.options import options_from
from stdlib_workers.observability.service import Service, load_modules
from stdlib_workers.observability.store.archive import Archive
from stdlib_workers.observability.store.schema import SCHEMA
from stdlib_workers.storage import look_after, open_store
from stdlib_workers.values import read_options


def main() -> None:
    """Start the worker; exit code 2 for a wrong option, 4 and 5 when the storage must not be used."""
    options = read_options(lambda config: options_from(config, os.environ))
    store = open_store("observability", SCHEMA, in_memory=options.in_memory)
    archive = Archive(store, options.limits)
    # What takes long comes before the connection: a worker that registers nothing for a second counts as ready.
    load_modules(options)
    worker = register_worker(options=InitOptions(worker_name="observability"))
    Service(worker, archive, options).register()
    look_after(worker, "observability", store)


main()
