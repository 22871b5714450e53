"""Functions: sync and async handlers, calls, errors, formats, calls that nobody waits for, taking a function back."""

from iii import InitOptions, InvocationError, TriggerAction, register_worker

worker = register_worker(options=InitOptions(worker_name="functions", worker_description="Shows functions"))
notes: list = []


def add(data: dict) -> dict:
    """Add two numbers."""
    return {"sum": data["a"] + data["b"]}


async def add_all(data: list) -> int:
    """Add many numbers by calling `functions::add` again and again."""
    total = 0
    for number in data:
        request = {"function_id": "functions::add", "payload": {"a": total, "b": number}, "timeout_ms": 5000}
        total = (await worker.trigger_async(request))["sum"]
    return total


def double(data: dict) -> dict:
    """Call another function from a handler that blocks."""
    return worker.trigger({"function_id": "functions::add", "payload": {"a": data["n"], "b": data["n"]}})


def fail(data: dict) -> None:
    """Raise."""
    raise ValueError(data["why"])


def attempt(data: dict) -> dict:
    """Tell what a call that fails looks like."""
    try:
        return {"result": worker.trigger(data)}
    except InvocationError as error:
        return {"code": error.code, "message": error.message}


def note(data: str) -> None:
    """Remember something."""
    notes.append(data)


def send_note(data: str) -> None:
    """Call `functions::note` without waiting for it."""
    request = {"function_id": "functions::note", "payload": data, "action": TriggerAction.Void()}
    return worker.trigger(request)


def read_notes(_: dict) -> list:
    """Return what was remembered."""
    return notes


for handler in (add_all, double, fail, attempt, note, send_note, read_notes):
    worker.register_function(f"functions::{handler.__name__}", handler)
temporary = worker.register_function("functions::temporary", lambda _: "still here")
worker.register_function("functions::drop", lambda _: temporary.unregister())
worker.register_function(
    "functions::add",
    add,
    description="Add two numbers",
    metadata={"tier": "gold"},
    request_format={
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
    },
    response_format={"type": "object", "properties": {"sum": {"type": "number"}}},
)
