"""A URL shortener: links are kept by the state worker, and a visit is counted before the client is sent on."""

import re
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from iii import HttpError, Response, register_worker

worker = register_worker()


@dataclass
class NewLink:
    """What to shorten; a link without a name gets a random one."""

    url: str
    name: str | None = None


@dataclass
class Link:
    """A link that is in use."""

    name: str
    url: str
    visits: int = 0


links = worker.state("links", Link)


@worker.post("/links", status=201)
def shorten(link: NewLink) -> Link:
    """Make a link."""
    if urlsplit(link.url).scheme not in ("http", "https"):
        raise HttpError(422, "url is an address that begins with http:// or https://")
    if link.name is not None and not re.fullmatch(r"[a-z0-9-]{1,40}", link.name):
        raise HttpError(422, "name is 1 to 40 of a-z, 0-9 and -")
    made = Link(link.name or secrets.token_hex(4), link.url)
    if not links.add(made.name, made):
        raise HttpError(409, f"the name {made.name} is taken")
    return made


@worker.get("/links")
def all_links(limit: int = 100) -> list[Link]:
    """Return the links, those with most visits first."""
    return sorted(links.list(), key=lambda link: -link.visits)[: max(limit, 0)]


@worker.get("/links/{name}")
def show(name: str) -> Link:
    """Return a link and how often it was followed."""
    if (link := links.get(name)) is None:
        raise HttpError(404, f"there is no link {name}")
    return link


@worker.delete("/links/{name}")
def forget(name: str) -> None:
    """Forget a link."""
    if links.delete(name) is None:
        raise HttpError(404, f"there is no link {name}")


@worker.get("/{name}")
def follow(name: str) -> Response:
    """Count a visit and send the client on."""
    show(name)
    link = links.update(name, {"type": "increment", "path": "visits", "by": 1})
    return Response.redirect(link.url)
