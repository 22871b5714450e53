"""From a signature to the sources of its arguments, and what cannot be decided."""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Optional, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii import Body, Cookie, File, Form, FromEvent, Header, Query, Request
from iii.declarations import load_declarations
from iii.engine.config.project import STDLIB_WORKERS
from iii.worker.functions.signature import read_signature
from iii.worker.handlers.arguments import (
    EVENTS,
    Undecided,
    event_arguments,
    http_arguments,
    names_in_path,
    parameters_from,
)


@dataclass
class Order:
    item: str
    quantity: int = 1


class Address(TypedDict):
    city: str


class Box(msgspec.Struct):
    size: int


class Customer(pydantic.BaseModel):
    name: str


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class UserId(str):
    pass


def http(function: Any, path: str = "/x", method: str = "POST", **constants: object) -> dict[str, Any]:
    return http_arguments(parameters_from(read_signature(function, strict=True)), path, method, constants)


def event(function: Any, trigger_type: str, path: str = "", **constants: object) -> dict[str, Any]:
    return event_arguments(parameters_from(read_signature(function, strict=True)), trigger_type, path, constants)


def test_each_parameter_of_a_request_has_its_place() -> None:
    def order(customer: int, order: Order, dry_run: bool = False, metadata: Any = None) -> None: ...

    assert http(order, "/orders/{customer}") == {
        "customer": {"in": "path", "name": "customer", "type": "integer", "required": True},
        "order": {"in": "body", "required": True},
        "dry_run": {"in": "query", "name": "dry_run", "type": "boolean"},
    }


@pytest.mark.parametrize("model", [Order, Address, Box, Customer, dict, dict[str, int], list[Order], Order | None])
def test_one_model_is_the_body_and_several_are_its_keys(model: Any) -> None:
    def one(order: Any) -> None: ...
    def two(order: Any, home: Address) -> None: ...

    one.__annotations__["order"] = two.__annotations__["order"] = model
    assert http(one) == {"order": {"in": "body", "required": True}}
    assert http(two) == {
        "order": {"in": "body", "name": "order", "required": True},
        "home": {"in": "body", "name": "home", "required": True},
    }


@pytest.mark.parametrize(
    ("hint", "read_as"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (int | None, {"type": "integer"}),
        (Optional[float], {"type": "number"}),  # noqa: UP045 - another class than a union by `|`
        (int | float, {"type": "number"}),
        (int | str, {"type": "string"}),
        (Literal["a", "b"], {"type": "string"}),
        (Literal[1, 2], {"type": "integer"}),
        (Literal[1, "a", None], {"type": "string"}),
        (Color, {"type": "string"}),
        (Level, {"type": "integer"}),
        (datetime.datetime, {"type": "string"}),
        (datetime.date | None, {"type": "string"}),
        (UserId, {"type": "string"}),
        (list[int], {"type": "array", "items": "integer"}),
        (list[str] | None, {"type": "array", "items": "string"}),
        (set[Color], {"type": "array", "items": "string"}),
        (tuple[int, float], {"type": "array", "items": "number"}),
        (list, {"type": "array"}),
        (Any, {}),
        (None, {}),
    ],
)
def test_a_scalar_of_the_query_is_read_as_its_type(hint: Any, read_as: dict[str, Any]) -> None:
    def find(value: Any = None) -> None: ...

    find.__annotations__ = {} if hint is None else {"value": hint}
    assert http(find, method="GET") == {"value": {"in": "query", "name": "value", **read_as}}


@pytest.mark.parametrize(("method", "place"), [("POST", "query_or_body"), ("GET", "query"), ("DELETE", "query")])
def test_scalars_without_a_body_may_stand_in_one_where_the_method_has_one(method: str, place: str) -> None:
    def quick(quantity: int) -> None: ...

    assert http(quick, method=method)["quantity"]["in"] == place


def test_annotations_name_other_places() -> None:
    def take(
        user_agent: Header,
        count: Annotated[int, Header("X-Count")],
        session: Annotated[str | None, Cookie()] = None,
        size: Annotated[int, Query("page[size]")] = 10,
        token: Annotated[str, Header] | None = None,
        kind: Annotated[Literal["a"], "One of a kind.", Body("kind")] = "a",
    ) -> None: ...

    assert http(take) == {
        "user_agent": {"in": "header", "name": "user-agent", "type": "string", "required": True},
        "count": {"in": "header", "name": "x-count", "type": "integer", "required": True},
        "session": {"in": "cookie", "name": "session", "type": "string"},
        "size": {"in": "query", "name": "page[size]", "type": "integer"},
        "token": {"in": "header", "name": "token", "type": "string"},
        "kind": {"in": "body", "name": "kind"},
    }


def test_forms_files_and_the_request_itself() -> None:
    def upload(
        request: Request,
        photo: File,
        title: Annotated[str, Form()],
        more: Annotated[list[File], Form("extra")] = [],  # noqa: B006 - never called
        note: Annotated[File | None, Form()] = None,
    ) -> None: ...

    assert http(upload) == {
        "request": {"in": "request", "required": True},
        "photo": {"in": "file", "name": "photo", "required": True},
        "title": {"in": "form", "name": "title", "type": "string", "required": True},
        "more": {"in": "file", "name": "extra", "type": "array"},
        "note": {"in": "file", "name": "note"},
    }


def test_constants_and_places_of_the_decorator_go_first() -> None:
    def order(id: int, order: Order, source: str = "") -> None: ...

    assert http(order, id=7, source=Header("referer")) == {
        "id": {"value": 7},
        "order": {"in": "body", "required": True},
        "source": {"in": "header", "name": "referer", "type": "string"},
    }
    assert event(order, "state", id=FromEvent("key"), source=FromEvent()) == {
        "id": {"in": "event", "name": "key", "required": True, "type": "integer"},
        "order": {"in": "event", "name": "new_value", "required": True},
        "source": {"in": "event"},
    }


def test_parts_of_a_state_and_the_model_is_its_new_value() -> None:
    def changed(key: int, event_type: str, order: Order | None, quantity: int = 1, request: Request | None = None): ...

    assert event(changed, "state") == {
        "key": {"in": "event", "name": "key", "required": True, "type": "integer"},
        "event_type": {"in": "event", "name": "event_type", "required": True},
        "order": {"in": "event", "name": "new_value", "required": True},
        "quantity": {"in": "event", "name": "new_value.quantity"},
    }


@pytest.mark.parametrize(
    ("trigger_type", "value"), [("state", "new_value"), ("stream", "event.data"), ("subscribe", ""), ("doorbell", "")]
)
def test_several_models_and_scalars_are_keys_of_what_an_event_is_about(trigger_type: str, value: str) -> None:
    def both(order: Order, home: Address) -> None: ...
    def scalars(item: str, quantity: int = 1) -> None: ...
    def one(anything) -> None: ...  # type: ignore[no-untyped-def]

    prefix = f"{value}." if value else ""
    assert event(both, trigger_type) == {
        "order": {"in": "event", "name": f"{prefix}order", "required": True},
        "home": {"in": "event", "name": f"{prefix}home", "required": True},
    }
    assert event(scalars, trigger_type) == {
        "item": {"in": "event", "name": f"{prefix}item", "required": True},
        "quantity": {"in": "event", "name": f"{prefix}quantity"},
    }
    whole = {"in": "event", "name": value, "required": True} if value else {"in": "event", "required": True}
    assert event(one, trigger_type) == {"anything": whole}


def test_parts_of_streams_ticks_and_sockets() -> None:
    def stream(stream_name: str, group_id: str, item_id: str, event: dict[str, Any]) -> None: ...
    def tick(scheduled_time: datetime.datetime, missed: int = 0, verbose: bool = False) -> None: ...
    def socket(room: int, data: str = "", payload: Any = None) -> None: ...

    assert {name: source["name"] for name, source in event(stream, "stream").items()} == {
        "stream_name": "streamName",
        "group_id": "groupId",
        "item_id": "id",
        "event": "event",
    }
    assert event(tick, "cron") == {
        "scheduled_time": {"in": "event", "name": "scheduled_time", "required": True},
        "missed": {"in": "event", "name": "missed", "type": "integer"},
    }
    assert event(socket, "websocket", "/rooms/{room}") == {
        "room": {"in": "event", "name": "path_params.room", "required": True, "type": "integer"},
        "data": {"in": "event", "name": "data"},
        "payload": {"in": "event"},
    }


def test_the_schema_of_an_event_has_the_parts_that_parameters_are_named_after() -> None:
    for name in ("state", "stream"):
        event = load_declarations(STDLIB_WORKERS / name).trigger_types[name]["call_request_format"]
        assert set(EVENTS[name].names.values()) <= event["properties"].keys()


def takes_order(order: Order) -> None: ...
def takes_header(token: Header) -> None: ...
def takes_default(token: str = Header("x-token")) -> None: ...
def takes_order_of_query(order: Annotated[Order, Query()]) -> None: ...
def takes_order_and_form(order: Order, title: Annotated[str, Form()]) -> None: ...
def takes_two_types(value: int | bool) -> None: ...
def takes_lists(value: list[int] | int) -> None: ...
def takes_rows(value: list[list[int]]) -> None: ...
def takes_scalar(value: int) -> None: ...
def takes_nothing() -> None: ...


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda: http(takes_order, method="GET"), "order would be the body, which GET requests have not"),
        (lambda: http(takes_nothing, "/{id}"), r"the path has {id}, .* add id: str"),
        (lambda: http(takes_default), r"write token: Annotated\[TYPE, Header\('x-token'\)\]"),
        (lambda: http(takes_order_of_query), "order is an object, which no query holds"),
        (lambda: http(takes_order, "/{order}"), "order is an object, which no path holds"),
        (lambda: http(takes_order_and_form), "order would be a JSON body and title a field of a form"),
        (lambda: http(takes_two_types), "^value may be one of boolean, integer, of which .* write str"),
        (lambda: http(takes_lists), "^value may be one of array, integer, of which a text"),
        (lambda: http(takes_rows), "^value is a list of lists, which no query holds; make it the body"),
        (lambda: http(takes_scalar, vlaue=1), "vlaue, which is no parameter; there are: value"),
        (lambda: event(takes_header, "cron"), "a cron event has none; give it a default"),
        (lambda: event(takes_scalar, "cron"), r"no value; its parts are job_id, .*value"),
    ],
)
def test_what_cannot_be_decided_says_what_to_write(read: Any, said: str) -> None:
    with pytest.raises(Undecided, match=said):
        read()


@pytest.mark.parametrize("path", ["/a/:id/*rest", "/a/{id}/{*rest}"])
def test_a_path_names_its_parts_in_either_spelling(path: str) -> None:
    assert names_in_path(path) == ["id", "rest"]


SCALARS = st.sampled_from([str, int, float, bool, int | None, list[int], Color, Literal["a"], Any, UserId])


@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), SCALARS, min_size=1, max_size=6), st.data())
def test_every_parameter_gets_exactly_one_source(hints: dict[str, Any], data: st.DataObject) -> None:
    hints = {f"p_{name}": hint for name, hint in hints.items()}
    in_path = data.draw(st.lists(st.sampled_from(sorted(hints)), unique=True))
    in_path = [name for name in in_path if hints[name] != list[int]]
    namespace: dict[str, Any] = {}
    exec(f"def f({', '.join(hints)}): ...", namespace)
    namespace["f"].__annotations__ = dict(hints)
    path = "/" + "/".join(f"{{{name}}}" for name in in_path)
    arguments = http(namespace["f"], path, "GET")
    assert arguments.keys() == hints.keys()
    assert {name for name, source in arguments.items() if source["in"] == "path"} == set(in_path)
    assert event(namespace["f"], "subscribe").keys() == hints.keys()
