"""A URL shortener: `uvicorn app:app`."""

import re
import secrets
import sqlite3
from urllib.parse import urlsplit

from fastapi import FastAPI, HTTPException
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

app = FastAPI()
database = sqlite3.connect("links.db", isolation_level=None, check_same_thread=False)
database.row_factory = sqlite3.Row
database.execute("CREATE TABLE IF NOT EXISTS links (name TEXT PRIMARY KEY, url TEXT, visits INTEGER)")


class NewLink(BaseModel):
    """What to shorten; a link without a name gets a random one."""

    url: str
    name: str | None = None


class Link(BaseModel):
    """A link that is in use."""

    name: str
    url: str
    visits: int = 0


@app.post("/links", status_code=201)
def shorten(link: NewLink) -> Link:
    """Make a link."""
    if urlsplit(link.url).scheme not in ("http", "https"):
        raise HTTPException(422, "url is an address that begins with http:// or https://")
    if link.name is not None and not re.fullmatch(r"[a-z0-9-]{1,40}", link.name):
        raise HTTPException(422, "name is 1 to 40 of a-z, 0-9 and -")
    made = Link(name=link.name or secrets.token_hex(4), url=link.url)
    try:
        database.execute("INSERT INTO links VALUES (?, ?, ?)", (made.name, made.url, made.visits))
    except sqlite3.IntegrityError:
        raise HTTPException(409, f"the name {made.name} is taken") from None
    return made


@app.get("/links")
def all_links(limit: int = 100) -> list[Link]:
    """Return the links, those with most visits first."""
    rows = database.execute("SELECT * FROM links ORDER BY visits DESC LIMIT ?", (max(limit, 0),))
    return [Link(**row) for row in rows]


@app.get("/links/{name}")
def show(name: str) -> Link:
    """Return a link and how often it was followed."""
    row = database.execute("SELECT * FROM links WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise HTTPException(404, f"there is no link {name}")
    return Link(**row)


@app.delete("/links/{name}", status_code=204)
def forget(name: str) -> None:
    """Forget a link."""
    if not database.execute("DELETE FROM links WHERE name = ?", (name,)).rowcount:
        raise HTTPException(404, f"there is no link {name}")


@app.get("/{name}")
def follow(name: str) -> RedirectResponse:
    """Count a visit and send the client on."""
    link = show(name)
    database.execute("UPDATE links SET visits = visits + 1 WHERE name = ?", (name,))
    return RedirectResponse(link.url)
