"""A wall of notes and pictures that every open page sees at once: a form, an upload, and server-sent events.

The notes are in the state worker. Its trigger tells every open page of a new one, whoever made it.
"""

import asyncio
import json
import secrets
import time
from pathlib import Path

from iii import register_worker
from iii.http import http

UPLOADS = Path(__file__).with_name("uploads")
# What a file begins with says what it is; its name and its content type are only what the client says.
KINDS = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif"}
# Checked before the handler runs; what does not fit is a 400 that says why.
NOTE = {
    "type": "object",
    "properties": {"text": {"type": "string", "minLength": 1, "maxLength": 500, "pattern": "\\S"}},
    "required": ["text"],
}
FORM = {"type": "object", "properties": {"body": NOTE}, "required": ["body"]}
PAGE = {"status_code": 303, "headers": {"location": "/"}}
KEEP_ALIVE_SECONDS = 15.0

worker = register_worker()
pages: set[asyncio.Queue] = set()


async def pin(note: dict) -> None:
    """Put a note on the wall. Keys sort by time."""
    key = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    request = {"scope": "wall", "key": key, "value": {**note, "id": key}}
    await worker.trigger_async("state::set", request)


async def post(request: dict) -> dict:
    """Take the form: a note in words."""
    await pin({"text": request["body"]["text"]})
    return PAGE


@http
async def upload(req, _res):
    """Take the form with a file: a note that is a picture."""
    picture = req.body.get("picture") if isinstance(req.body, dict) else None
    if not isinstance(picture, dict):
        return {"status_code": 400, "body": refusal("INVALID", "choose a picture")}
    content = await picture["content"].read_all()
    ending = next((ending for start, ending in KINDS.items() if content.startswith(start)), None)
    if ending is None:
        return {"status_code": 415, "body": refusal("NO_PICTURE", "a picture is a PNG, a JPEG or a GIF")}
    UPLOADS.mkdir(exist_ok=True)
    name = secrets.token_hex(8) + ending
    (UPLOADS / name).write_bytes(content)
    await pin({"picture": f"/uploads/{name}", "text": picture["filename"]})
    return PAGE


def refusal(code: str, message: str) -> dict:
    """Return an error in the shape that the http worker's own have."""
    return {"error": {"code": code, "message": message}}


async def pinned(event: dict) -> None:
    """Tell every open page of a new note."""
    for page in pages:
        page.put_nowait(event["new_value"])


@http
async def events(_req, res):
    """Send all notes, then each new one, for as long as the page is open."""
    page: asyncio.Queue = asyncio.Queue()
    pages.add(page)
    try:
        await res.headers({"content-type": "text/event-stream", "cache-control": "no-store"})
        # The head goes with the first bytes, and the wall may be empty for long.
        await res.write(": welcome\n\n")
        for note in sorted(await worker.trigger_async("state::list", {"scope": "wall"}), key=lambda note: note["id"]):
            await res.write(event_of(note))
        while True:
            await res.write(await next_event(page))
    finally:
        pages.discard(page)


async def next_event(page: asyncio.Queue) -> str:
    """Return the next note, or a comment: by writing it we learn whether the page is still there."""
    try:
        return event_of(await asyncio.wait_for(page.get(), KEEP_ALIVE_SECONDS))
    except TimeoutError:
        return ": still here\n\n"


def event_of(note: dict) -> str:
    """Return a note as a server-sent event; a page that connects again may get one twice, and knows it by its id."""
    return f"id: {note['id']}\ndata: {json.dumps(note)}\n\n"


for name, function, path, method, stream, request_format in (
    ("post", post, "/notes", "POST", False, FORM),
    ("upload", upload, "/pictures", "POST", True, None),
    ("events", events, "/events", "GET", True, None),
):
    worker.register_function(f"wall::{name}", function, request_format=request_format)
    config = {"api_path": path, "http_method": method, "stream": stream}
    worker.register_trigger({"type": "http", "function_id": f"wall::{name}", "config": config})

worker.register_function("wall::pinned", pinned)
worker.register_trigger({"type": "state", "function_id": "wall::pinned", "config": {"scope": "wall"}})
