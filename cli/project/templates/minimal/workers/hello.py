from iii import register_worker

worker = register_worker()


@worker.function("hello::greet")
def greet(name: str = "world", excited: bool = False) -> dict[str, str]:
    """Greet by name.

    Args:
        name: Who is greeted.
        excited: Whether an exclamation mark ends the greeting.
    """
    return {"message": f"Hello, {name}{'!' if excited else '.'}"}
