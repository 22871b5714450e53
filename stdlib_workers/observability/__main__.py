"""`[workers.observability]`: open the archive and serve. Run by the engine."""

from __future__ import annotations

import json
import os
import sys

from iii import InitOptions, register_worker
from stdlib_workers.observability.config.options import options_from
from stdlib_workers.observability.service import Service
from stdlib_workers.observability.store.archive import Archive
from stdlib_workers.observability.store.schema import SCHEMA
from stdlib_workers.storage import Refusal, open_store
from stdlib_workers.values import OptionError


def main() -> None:
    """Start the worker; exit code 2 for a wrong option, 4 and 5 when the storage must not be used."""
    try:
        options = options_from(json.loads(os.environ.get("III_CONFIG") or "{}"), os.environ)
        project = os.environ.get("III_PROJECT", "")
        store = open_store("observability", SCHEMA, project=project, in_memory=options.in_memory)
    except OptionError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    except Refusal as refusal:
        sys.stderr.write(f"observability: {refusal}\n")
        raise SystemExit(refusal.exit_code) from None
    worker = register_worker(options=InitOptions(worker_name="observability"))
    Service(worker, Archive(store, options.limits), options).register()


main()
