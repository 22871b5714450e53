"""The smallest worker: one function with typed parameters. The types become its schema and its `--help`."""

from iii import register_worker

worker = register_worker()


@worker.function("math::add")
def add(a: float, b: float) -> dict[str, float]:
    """Add two numbers."""
    return {"c": a + b}
