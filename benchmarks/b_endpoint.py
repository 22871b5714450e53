"""A typed endpoint against the dict form: `python -m benchmarks.b_endpoint [--quick]`; needs wrk.

Path, query and a body model, through http worker, engine and Python worker: the CPU time of all three for a request.
One project serves all forms, which are put under the same load in the same rounds.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.b_http import start
from benchmarks.harness import Comparison, Options, Row, interleave
from benchmarks.report import table

CONNECTIONS = 16
TARGET = 1.15
FORMS = {
    "decorated": "a decorated function",
    "plain": "a binding in plain data",
}
WORKER = """
from dataclasses import dataclass
from iii import register_worker
worker = register_worker()

@dataclass
class NewOrder:
    item: str
    quantity: int = 1

def by_dict(request):
    customer, body = request["path_params"]["customer"], request["body"]
    dry_run = request["query_params"].get("dry_run") == "true"
    order = {"item": body["item"], "quantity": int(body.get("quantity", 1))}
    return {"body": {"customer": customer, "dry_run": dry_run, "order": order}}

worker.register_function("bench::dict", by_dict)
worker.register_trigger({"type": "http", "function_id": "bench::dict",
                         "config": {"api_path": "/dict/{customer}", "http_method": "POST"}})

@worker.post("/decorated/{customer}")
def order(customer: str, order: NewOrder, dry_run: bool = False) -> dict:
    return {"customer": customer, "dry_run": dry_run, "order": {"item": order.item, "quantity": order.quantity}}

worker.register_trigger({"type": "http", "function_id": "bench::order", "config": {
    "api_path": "/plain/{customer}", "http_method": "POST", "payload": "arguments", "arguments": {
        "customer": {"in": "path"}, "order": {"in": "body"}, "dry_run": {"in": "query", "type": "boolean"}}}})
"""
TOML = """
[engine]
listen = "off"
[workers.http.config]
port = 0
access_log = false
[workers.bench]
run = "bench.py"
"""
SCRIPT = """
wrk.method = "POST"
wrk.body = '{"item":"tea","quantity":2}'
wrk.headers["content-type"] = "application/json"
done = function(summary, latency, requests)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format("@ %d %d\\n", summary.requests, failed))
end
"""


def run(options: Options) -> list[Row]:
    """Compare each form with the dict form."""
    seconds = 2 if options.quick else 4
    with tempfile.TemporaryDirectory() as made, served(Path(made)) as (process, port):
        script = Path(made, "post.lua")
        script.write_text(SCRIPT)
        setups = {form: lambda form=form: cost(process, port, form, script, seconds) for form in ("dict", *FORMS)}
        figures = interleave(setups, options.rounds)
    return [
        Comparison(f"E{number}", f"{what}, CPU of a request against the dict form", "us", TARGET).row(
            figures[form], figures["dict"]
        )
        for number, (form, what) in enumerate(FORMS.items(), 1)
    ]


@contextmanager
def served(folder: Path) -> Iterator[tuple[psutil.Process, int]]:
    """Run the project; yields its engine and the port of its http worker."""
    (folder / "iii.toml").write_text(TOML)
    (folder / "bench.py").write_text(WORKER)
    process = start([sys.executable, "-m", "cli.main", "start"], folder)
    port, is_ready = 0, False
    assert process.stdout is not None
    try:
        for line in process.stdout:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            port = int(found[1]) if found else port
            is_ready = is_ready or "ready in" in line
            if port and is_ready:
                break
        yield psutil.Process(process.pid), port
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def cost(process: psutil.Process, port: int, form: str, script: Path, seconds: int) -> float:
    """Return the CPU microseconds of one request, of the engine and all its workers."""
    url = f"http://127.0.0.1:{port}/{form}/7?dry_run=true"
    before = cpu_seconds(process)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), url]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    used = cpu_seconds(process) - before
    requests, failed = map(int, printed.rpartition("@ ")[2].split())
    if failed or not requests:
        raise RuntimeError(f"{failed} of {requests} requests of {url} failed")
    return used * 1e6 / requests


def cpu_seconds(process: psutil.Process) -> float:
    """Return what a process and its children have used, and those of its children that have ended."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.b_endpoint", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs")
    print(table(run(Options(quick=parser.parse_args().quick))))


if __name__ == "__main__":
    main()
