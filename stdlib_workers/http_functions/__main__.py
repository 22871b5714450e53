"""`[workers.http_functions]`: register the functions that the engine calls for functions behind a URL."""

from __future__ import annotations

import json
import os
import sys

from iii import InitOptions, register_worker
from stdlib_workers.egress import rules_from
from stdlib_workers.http_functions.functions import HttpFunctions
from stdlib_workers.values import OptionError, check_names

NAME = "http_functions"


def main() -> None:
    """Start the worker; exit code 2 for a wrong option."""
    config = json.loads(os.environ.get("III_CONFIG") or "{}")
    try:
        check_names(config, ("security",), NAME)
        functions = HttpFunctions(rules_from(config.get("security", {}), NAME), os.environ)
    except OptionError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    worker = register_worker(options=InitOptions(worker_name=NAME))
    for name in ("check", "invoke"):
        worker.register_function(f"engine::{NAME}::{name}", getattr(functions, name), metadata={"internal": True})


main()
