"""A worker on the SDK that comes with this engine: a plain script over its standard input and output."""

from iii import register_worker

worker = register_worker()


@worker.function("ours::greeting")
def greeting(name: str) -> dict:
    """Return how to greet somebody."""
    return {"text": f"hello {name}"}
