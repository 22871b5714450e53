"""An agent in a loop: a model says what to look up, many lookups run at once, until it has an answer."""

from typing import Any

from iii import AsyncFlow, register_worker

worker = register_worker()


@worker.function("model::next")
async def next_move(question: str, notes: list[str]) -> dict[str, Any]:
    """Stand in for a language model: look up each word, then answer."""
    if not notes:
        return {"look_up": question.split()}
    return {"answer": "; ".join(notes)}


@worker.function("web::look_up")
async def look_up(word: str) -> str:
    return f"{word} has {len(word)} letters"


@worker.flow("research::answer")
async def answer(flow: AsyncFlow, question: str) -> str:
    notes: list[str] = []
    while True:
        move = await flow.call("model::next", {"question": question, "notes": notes}, timeout_ms=60_000)
        if "answer" in move:
            return str(move["answer"])
        words = [{"word": word} for word in move["look_up"]]
        notes += await flow.map("web::look_up", words, concurrency=4)
        await flow.status({"notes": len(notes)})
