"""pyzmq and orjson over unix sockets: caller and callee directly, or with a proxy between them (`... proxy`).

Directly there are two processes and no one who knows functions, checks a message or outlives a callee; with the proxy
there are three, as there are with an engine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

import orjson
import zmq
from figures import CALLS, WINDOW, report


def serve(address: str) -> None:
    """Answer every call."""
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(address)
    while True:
        *envelope, body = socket.recv_multipart()
        call = orjson.loads(body)
        result = {"c": call["data"]["a"] + call["data"]["b"]}
        socket.send_multipart([*envelope, orjson.dumps({"id": call["id"], "result": result})])


def pass_on(front: str, back: str) -> None:
    """Be the proxy between callers and callees."""
    context = zmq.Context()
    callers, callees = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    callers.bind(front)
    callees.bind(back)
    zmq.proxy(callers, callees)


def measure(socket: zmq.Socket, calls: int) -> tuple[list[float], float]:
    """Keep a window of calls in flight; return the latencies and the seconds."""
    sent: dict[int, float] = {}
    latencies: list[float] = []

    def send(number: int) -> None:
        sent[number] = time.perf_counter()
        call = {"id": number, "function_id": "bench::add", "data": {"a": 2, "b": 3}}
        socket.send(orjson.dumps(call))

    begin = time.perf_counter()
    for number in range(min(WINDOW, calls)):
        send(number)
    for number in range(calls):
        answer = orjson.loads(socket.recv())
        latencies.append(time.perf_counter() - sent.pop(answer["id"]))
        if number + WINDOW < calls:
            send(number + WINDOW)
    return latencies, time.perf_counter() - begin


def main(*, has_proxy: bool) -> None:
    """Start the other processes, warm up, measure."""
    with tempfile.TemporaryDirectory() as folder:
        front, back = f"ipc://{folder}/front", f"ipc://{folder}/back"
        socket = zmq.Context().socket(zmq.DEALER)
        others = [subprocess.Popen([sys.executable, __file__, "serve", back if has_proxy else front])]
        if has_proxy:
            others.append(subprocess.Popen([sys.executable, __file__, "pass_on", front, back]))
            socket.connect(front)
        else:
            socket.bind(front)
        try:
            measure(socket, max(WINDOW, CALLS // 5))
            report(*measure(socket, CALLS))
        finally:
            for other in others:
                other.kill()
                other.wait()
    os._exit(0)  # its threads would wait for messages to nobody


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    elif sys.argv[1] == "pass_on":
        pass_on(*sys.argv[2:4])
    else:
        main(has_proxy="proxy" in sys.argv)
