"""An agent that answers word by word, with the help of functions that other workers have."""

from collections.abc import AsyncIterator
from typing import Any, TypedDict

from model import ToolCall, think

from iii import InvocationError, register_worker

worker = register_worker()


class Piece(TypedDict, total=False):
    """A piece of an answer: a word, a tool's name and what it has said, or that the answer is over."""

    word: str
    tool: str
    result: dict[str, Any]
    done: bool


class Turn(TypedDict):
    """A question and its answer."""

    question: str
    answer: str


chats = worker.state("chats", list[Turn])


@worker.get("/chats/{chat}/ask")
async def ask(chat: str, question: str) -> AsyncIterator[Piece]:
    """Answer a question piece by piece."""
    found: list[dict[str, Any]] = []
    words: list[str] = []
    while not words:
        async for step in think(question, found):
            if isinstance(step, ToolCall):
                found.append(await use(step))
                yield {"tool": step.function_id, "result": found[-1]}
            else:
                words.append(step)
                yield {"word": step}
    turn: Turn = {"question": question, "answer": " ".join(words)}
    await chats.update_async(chat, {"type": "append", "path": "", "value": turn})
    yield {"done": True}


@worker.get("/chats/{chat}")
async def turns(chat: str) -> list[Turn]:
    """Return what was said in a chat."""
    return await chats.get_async(chat) or []


async def use(call: ToolCall) -> dict[str, Any]:
    """Call a tool; what it fails with is for the model to see as well."""
    try:
        result: dict[str, Any] = await worker.trigger_async(call.function_id, call.arguments)
    except InvocationError as error:
        return {"error": error.message}
    return result
