from collections.abc import Iterator

from iii import register_worker
from model import Text, ToolCall, next_steps

worker = register_worker()


@worker.get("/answer")
def answer(question: str) -> Iterator[str]:
    """Answer a question word by word, with the help of the functions under `tools::`."""
    found: list[str] = []
    while True:
        for step in next_steps(question, found):
            if isinstance(step, Text):
                yield step.text
            elif isinstance(step, ToolCall):
                found.append(str(worker.trigger({"function_id": step.function_id, "payload": step.arguments})))
                break
        else:
            return
