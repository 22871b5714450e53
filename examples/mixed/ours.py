"""The SDK that comes with the engine: JSON lines over standard input and output."""

from iii import register_worker

worker = register_worker()


@worker.function("ours::count")
def count(text: str) -> dict:
    """Count the letters of a text."""
    return {"letters": sum(map(str.isalpha, text)), "version": 1}


@worker.function("ours::ask")
def ask(of: str) -> dict:
    """Call another function with a text of three words."""
    result: dict = worker.trigger({"function_id": of, "payload": {"text": "a b c"}})
    return result
