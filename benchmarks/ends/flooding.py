"""A neighbor that sends calls nobody waits for, one write each, as fast as the engine takes them."""

from __future__ import annotations

from iii import TriggerAction, register_worker

worker = register_worker()
REQUEST = {"function_id": "bench::sink", "payload": {"pad": "x" * 100}, "action": TriggerAction.Void()}


def sink(_: object) -> None:
    """Take it."""


worker.register_function("bench::sink", sink)
worker.ready()
while True:
    worker.trigger(REQUEST)
