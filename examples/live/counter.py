"""A counter that anybody may raise at the same time, and the page that shows it.

`counter::add` is one update operation, so no count is lost. The state trigger copies each new value into a stream,
which takes it to every open page.
"""

from pathlib import Path

from iii import register_worker

PAGE = Path(__file__).with_name("page.html")
worker = register_worker()


def add(_: dict) -> dict:
    """Raise the counter and return it."""
    ops = [{"type": "increment", "path": "count", "by": 1}]
    done = worker.trigger("state::update", {"scope": "live", "key": "counter", "ops": ops})
    return done["new_value"]


def show(event: dict) -> None:
    """Copy a new value into the stream."""
    place = {"stream_name": "live", "group_id": "numbers", "item_id": "counter"}
    worker.trigger("stream::set", {**place, "data": event["new_value"]})


def press(_: dict) -> dict:
    """Raise the counter for the page's button."""
    return {"status_code": 200, "body": add({})}


def page(_: dict) -> dict:
    """Return the page."""
    return {"status_code": 200, "headers": {"content-type": "text/html; charset=utf-8"}, "body": PAGE.read_text()}


worker.register_function("counter::add", add)
worker.register_function("counter::show", show)
worker.register_function("counter::press", press)
worker.register_function("counter::page", page)
worker.register_trigger(
    {"type": "state", "function_id": "counter::show", "config": {"scope": "live", "key": "counter"}}
)
worker.register_trigger(
    {"type": "http", "function_id": "counter::page", "config": {"api_path": "/", "http_method": "GET"}}
)
worker.register_trigger(
    {"type": "http", "function_id": "counter::press", "config": {"api_path": "/add", "http_method": "POST"}}
)
