"""`[workers.http_functions]`: register the functions that the engine calls for functions behind a URL."""

from __future__ import annotations

import os
from typing import Any

from iii import InitOptions, register_worker
from stdlib_workers.egress import Rules, rules_from
from stdlib_workers.http_functions.functions import HttpFunctions
from stdlib_workers.values import check_names, read_options

NAME = "http_functions"


def main() -> None:
    """Start the worker; exit code 2 for a wrong option."""

    def parse(config: dict[str, Any]) -> Rules:
        check_names(config, ("security",), NAME)
        return rules_from(config.get("security", {}), NAME)

    functions = HttpFunctions(read_options(parse), os.environ)
    worker = register_worker(options=InitOptions(worker_name=NAME))
    for name in ("check", "invoke"):
        worker.register_function(f"engine::{NAME}::{name}", getattr(functions, name), metadata={"internal": True})


main()
