from iii import register_worker

worker = register_worker()


@worker.get("/hello/{name}")
def greet(name: str) -> dict[str, str]:
    """Greet by name: GET /hello/Ada, and `iii trigger hello::greet name=Ada`."""
    return {"message": f"Hello, {name}!"}
