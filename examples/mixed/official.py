"""The official Python SDK, over WebSocket."""

import threading

from iii import register_worker

worker = register_worker()


def count(payload):
    """Count the lines of a text."""
    return {"lines": len(payload["text"].splitlines()), "version": 1}


def ask(payload):
    """Call another function with a text of three words."""
    return worker.trigger({"function_id": payload["of"], "payload": {"text": "a b c"}})


worker.register_function("python::count", count)
worker.register_function("python::ask", ask)
threading.Event().wait()
