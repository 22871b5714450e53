from iii import register_worker

worker = register_worker()


@worker.function("tools::weather")
def weather(city: str) -> str:
    """Say what the weather in a city is like."""
    return f"It is sunny in {city}."
