"""Where in an event a parameter's value stands, said in its annotation. Pure.

Each class is a text: the name there. Without one it is the parameter's own. `Annotated[int, Header("x-count")]` reads a
number; `agent: Header` alone is the text of a header.
"""

from __future__ import annotations

from iii.worker.functions.schema import is_union

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Place(str):
    """One part of an event, by its name there; an empty text stands for the name of the parameter."""

    __slots__ = ()
    location = ""


class Query(Place):
    """A parameter of the query: `Annotated[int, Query("page[size]")]`."""

    __slots__ = ()
    location = "query"


class Header(Place):
    """A header: `Annotated[str, Header("x-token")]`. `user_agent: Header` reads the header `user-agent`."""

    __slots__ = ()
    location = "header"


class Cookie(Place):
    """A cookie: `Annotated[str | None, Cookie("session")]`."""

    __slots__ = ()
    location = "cookie"


class Form(Place):
    """A field of a form, urlencoded or multipart: `Annotated[str, Form()]`; with `File` the name of an upload."""

    __slots__ = ()
    location = "form"


class Body(Place):
    """The body of a request, or with a name one key of it: `Annotated[int, Body("quantity")]`."""

    __slots__ = ()
    location = "body"


class FromEvent(Place):
    """A part of any trigger type's event, dots lead down: `Annotated[int, FromEvent("new_value.id")]`.

    Without a name it is the whole event.
    """

    __slots__ = ()
    location = "event"


def place_of(hint: Any) -> Place | None:
    """Return the place that an annotation names, also inside of a union; None when it names none."""
    if isinstance(hint, type) and issubclass(hint, Place):
        return hint()
    for note in getattr(hint, "__metadata__", ()):
        if isinstance(note, Place):
            return note
        if isinstance(note, type) and issubclass(note, Place):
            return note()
    members = hint.__args__ if is_union(hint) else ()
    return next((place for place in map(place_of, members) if place is not None), None)
