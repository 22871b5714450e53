"""An agent that answers word by word: `uvicorn app:app`, beside `tsx tools.ts`."""

import json
import sqlite3
from collections.abc import AsyncIterator
from typing import Any, TypedDict

import httpx
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.staticfiles import StaticFiles
from model import ToolCall, think
from pydantic import BaseModel

TOOLS = "http://127.0.0.1:3000"
app = FastAPI()
database = sqlite3.connect("chats.db", isolation_level=None, check_same_thread=False)
database.execute("CREATE TABLE IF NOT EXISTS turns (chat TEXT, question TEXT, answer TEXT)")


class Piece(TypedDict, total=False):
    """A piece of an answer: a word, a tool's name and what it has said, or that the answer is over."""

    word: str
    tool: str
    result: dict[str, Any]
    done: bool


class Turn(BaseModel):
    """A question and its answer."""

    question: str
    answer: str


async def pieces(chat: str, question: str) -> AsyncIterator[Piece]:
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
    database.execute("INSERT INTO turns VALUES (?, ?, ?)", (chat, question, " ".join(words)))
    yield {"done": True}


@app.get("/chats/{chat}/ask")
def ask(chat: str, question: str) -> StreamingResponse:
    """Answer a question as server-sent events."""

    async def events() -> AsyncIterator[str]:
        async for piece in pieces(chat, question):
            yield f"data: {json.dumps(piece)}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/chats/{chat}")
def turns(chat: str) -> list[Turn]:
    """Return what was said in a chat."""
    rows = database.execute("SELECT question, answer FROM turns WHERE chat = ?", (chat,))
    return [Turn(question=question, answer=answer) for question, answer in rows]


async def use(call: ToolCall) -> dict[str, Any]:
    """Call a tool; what it fails with is for the model to see as well."""
    async with httpx.AsyncClient(base_url=TOOLS) as client:
        try:
            response = await client.post(f"/{call.function_id}", json=call.arguments)
        except httpx.HTTPError as error:
            return {"error": str(error)}
        result: dict[str, Any] = response.json()
        return result


app.mount("/", StaticFiles(directory="public", html=True))
