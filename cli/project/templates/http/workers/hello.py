from typing import Any

from iii import register_worker

worker = register_worker()


@worker.function("hello::greet")
def greet(name: str) -> dict[str, str]:
    """Greet by name."""
    return {"message": f"Hello, {name}!"}


def page(request: dict[str, Any]) -> dict[str, Any]:
    """Answer GET /hello/:name."""
    return {"status_code": 200, "body": greet(request["path_params"]["name"])}


worker.register_function("hello::page", page)
worker.register_trigger(
    {"type": "http", "function_id": "hello::page", "config": {"api_path": "/hello/:name", "http_method": "GET"}}
)
