"""HTTP: what the way through engine and worker costs. `python -m benchmarks.b_http [--quick]`; needs wrk.

The same JSON handler is served by bare uvicorn and Starlette in one process, and by a Python worker behind the http
worker and the engine, in the same rounds. What 10,000 routes change is compared with ten.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Comparison, Options, Row, interleave
from benchmarks.report import table

ROOT = Path(__file__).resolve().parents[1]
CONNECTIONS = 64
TARGET_RATE, TARGET_P99, TARGET_ROUTES = 0.5, 2.0, 1.2
BARE = """
import asyncio, orjson, socket, sys
import uvicorn, uvloop
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def add(request):
    body = orjson.loads(await request.body())
    return Response(orjson.dumps({"sum": body["a"] + body["b"]}), media_type="application/json")

listening = socket.create_server(("127.0.0.1", 0))
sys.stderr.write(f"http://127.0.0.1:{listening.getsockname()[1]}\\n")
sys.stderr.flush()
app = Starlette(routes=[Route("/add", add, methods=["POST"])])
config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
uvloop.run(uvicorn.Server(config).serve([listening]))
"""
WORKER = """
import os
from iii import register_worker
worker = register_worker()
def add(request):
    body = request["body"]
    return {"body": {"sum": body["a"] + body["b"]}}
worker.register_function("bench::add", add)
for number in range(int(os.environ["ROUTES"])):
    worker.register_trigger({"type": "http", "function_id": "bench::add",
                             "config": {"api_path": f"/add/{number}/:id", "http_method": "POST"}})
worker.register_trigger({"type": "http", "function_id": "bench::add",
                         "config": {"api_path": "/add", "http_method": "POST"}})
"""
TOML = """
[engine]
listen = "off"
[workers.http.config]
port = 0
access_log = false
[workers.bench]
run = "bench.py"
env = {{ ROUTES = "{routes}" }}
"""
SCRIPT = """
wrk.method = "POST"
wrk.body = '{"a":2,"b":3}'
wrk.headers["content-type"] = "application/json"
done = function(summary, latency, requests)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format("@ %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(99), failed))
end
"""

Figures = dict[str, float]


def run(options: Options) -> list[Row]:
    """Return every comparison."""
    seconds = 2 if options.quick else 6
    with tempfile.TemporaryDirectory() as made, served(Path(made)) as ports:
        setups = {name: lambda port=port: load(Path(made), port, seconds) for name, port in ports.items()}
        figures = interleave(setups, options.rounds // 2 + 1)

    def of(name: str, key: str) -> list[float]:
        return [each[key] for each in figures[name]]

    what = f"JSON endpoint, {CONNECTIONS} connections, against bare uvicorn + Starlette"
    return [
        Comparison("H1", what, "requests/s", TARGET_RATE, False).row(of("ours", "rate"), of("bare", "rate")),
        Comparison("H2", what + ", p99", "us", TARGET_P99).row(of("ours", "p99"), of("bare", "p99")),
        Comparison("H3", "10,000 routes against 10", "us", TARGET_ROUTES).row(of("many", "cost"), of("ours", "cost")),
    ]


@contextmanager
def served(folder: Path) -> Iterator[dict[str, int]]:
    """Serve everything; yields the ports by name."""
    commands = {"bare": [sys.executable, "-c", BARE]}
    for name, routes in {"ours": 10, "many": 10_000}.items():
        place = folder / name
        place.mkdir()
        (place / "iii.toml").write_text(TOML.format(routes=routes))
        (place / "bench.py").write_text(WORKER)
        commands[name] = [sys.executable, "-m", "cli.main", "start"]
    processes = {name: start(command, folder / name) for name, command in commands.items()}
    try:
        yield {name: port_of(process) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for process in processes.values():
            process.communicate(timeout=30)


def start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    """Start a server in its folder, its words on a pipe."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("III_")}
    return subprocess.Popen(
        command,
        cwd=folder if folder.is_dir() else None,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def port_of(process: subprocess.Popen[str]) -> int:
    """Wait for the line with the address, and until the handler answers there."""
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if found:
            wait_for(int(found[1]))
            return int(found[1])
    raise RuntimeError("the server has ended without an address")


def wait_for(port: int) -> None:
    """Ask until the route is there."""
    body = json.dumps({"a": 2, "b": 3}).encode()
    headers = {"content-type": "application/json"}
    for _ in range(10_000):
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/add", body, headers)
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert json.load(answer) == {"sum": 5}
                return
        except urllib.error.HTTPError as error:
            error.close()
    raise RuntimeError("the route has not come")


def load(folder: Path, port: int, seconds: int) -> Figures:
    """Run wrk against a port: requests per second, and microseconds of p99 and of a request's share of the time."""
    script = folder / "post.lua"
    script.write_text(SCRIPT)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}/add"]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    requests, duration, p99, failed = map(int, printed.rpartition("@ ")[2].split())
    if failed:
        raise RuntimeError(f"{failed} of {requests} requests failed")
    return {"rate": requests * 1e6 / duration, "p99": p99, "cost": duration / requests}


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.b_http", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs")
    print(table(run(Options(quick=parser.parse_args().quick))))


if __name__ == "__main__":
    main()
