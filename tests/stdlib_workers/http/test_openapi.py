"""The OpenAPI document and its page: what routes and schemas become, and that names stay text."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stdlib_workers.http.documentation import Documentation, page_from
from stdlib_workers.http.openapi import document_from
from stdlib_workers.http.routes import Route
from tests.support.asgi_client import Site

REQUEST = {
    "type": "object",
    "required": ["body"],
    "properties": {
        "body": {"$ref": "#/$defs/Order"},
        "path_params": {"type": "object", "properties": {"id": {"type": "integer"}}},
        "query_params": {"type": "object", "required": ["q"], "properties": {"q": {"type": "string"}}},
    },
    "$defs": {"Order": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Order"}}}},
}
RESPONSE = {"type": "object", "properties": {"body": {"type": "number"}}}


def operation(method: str = "POST", pattern: str = "/orders/:id", **function: Any) -> tuple[dict[str, Any], Any]:
    """The document of one route, and its operation."""
    document = document_from("shop", [Route("t", "shop::f", method, pattern)], {"shop::f": function})
    [path] = document["paths"].values()
    return document, path[method.lower()]


def test_schemas_of_the_request_object_become_parameters_and_body() -> None:
    document, found = operation(request_schema=REQUEST, response_schema=RESPONSE, description="Take.\nMore.")
    assert list(document["paths"]) == ["/orders/{id}"]
    assert found["parameters"] == [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "integer", "minLength": 1}},
        {"name": "q", "in": "query", "required": True, "schema": {"type": "string"}},
    ]
    assert found["requestBody"]["required"] is True
    body = found["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/shop.f.Order"}
    order = document["components"]["schemas"]["shop.f.Order"]
    assert order["properties"]["next"] == body
    assert found["responses"]["2XX"]["content"]["application/json"]["schema"] == {"type": "number"}
    assert (found["summary"], found["description"]) == ("Take.", "Take.\nMore.")
    assert (found["tags"], found["x-function-id"]) == (["shop"], "shop::f")


def test_a_function_without_schemas_takes_anything() -> None:
    _, found = operation("GET", "/files/*rest")
    assert [row["name"] for row in found["parameters"]] == ["rest"]
    assert "requestBody" not in found


def test_every_reference_leads_somewhere() -> None:
    document, _ = operation(request_schema=REQUEST, response_schema=RESPONSE)
    text = json.dumps(document)
    names = [part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]]
    assert names
    assert set(names) <= document["components"]["schemas"].keys()


def test_methods_that_openapi_has_no_place_for_are_left_out() -> None:
    assert document_from("x", [Route("t", "f::f", "PURGE", "/a")], {})["paths"] == {}


def test_operations_have_names_that_generators_can_use_and_nobody_else_has() -> None:
    texts = ("GET /a/:b", "GET /a/*b", "GET /a_b", "POST /a b/{c}", "DELETE /a/:b")
    routes = [Route(text, "f::f", *text.split(" ", 1)) for text in texts]
    document = document_from("x", routes, {})
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names) == 4  # the first two are one path of OpenAPI
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)


def test_a_delete_has_no_body() -> None:
    _, found = operation("DELETE", request_schema=REQUEST)
    assert "requestBody" not in found
    assert "204" in found["responses"]


def test_functions_with_similar_names_keep_their_own_definitions() -> None:
    rows = {
        name: {"request_schema": {"properties": {"body": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"title": name}}}}
        for name in ("a::b", "a.b", "a b")
    }
    document = document_from("x", [Route(name, name, "POST", f"/{place}") for place, name in enumerate(rows)], rows)
    for place, name in enumerate(rows):
        body = document["paths"][f"/{place}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert document["components"]["schemas"][body["$ref"].rpartition("/")[2]] == {"title": name}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["properties", "required", "$defs", "$ref", "body", "query_params", "path_params", "id", "type"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(_JSON, _JSON, _JSON)
def test_whatever_one_registers_as_a_schema_the_routes_of_others_are_described(
    a: Any, b: Any, description: Any
) -> None:
    functions = {
        "evil::f": {"request_schema": a, "response_schema": b, "description": description},
        "shop::f": {"request_schema": REQUEST},
    }
    routes = [Route("1", "evil::f", "POST", "/evil/:id"), Route("2", "shop::f", "POST", "/orders/:id")]
    document = document_from("x", routes, functions)
    _, expected = operation(request_schema=REQUEST)
    assert document["paths"]["/orders/{id}"]["post"] == expected
    assert b"/orders/{id}" in page_from(json.loads(json.dumps(document)), "http://localhost")


@given(st.text(), st.text(), st.text())
def test_s08_whatever_things_are_called_the_page_is_text(function_id: str, description: str, name: str) -> None:
    attack = f"</pre><script>{name}</script><img src=x onerror=alert(1)>"
    schema = {"properties": {"body": {"title": attack}, "query_params": {"properties": {attack: {}}}}}
    row = {"description": description + attack, "request_schema": schema}
    route = Route("t", function_id + attack, "POST", "/" + "<script>")
    page = page_from(document_from(attack, [route], {route.function_id: row}), "http://localhost").decode()
    assert "<script" not in page
    assert "<img" not in page


def site() -> Site:
    """One route, and the document beside it."""
    rows = {"functions": [{"function_id": "f::f", "description": "Greets."}]}
    made = Site({"f::f": lambda _: {"body": "route"}, "engine::functions::info": lambda _: rows})
    made.application.literals = [Documentation(made._trigger, made.routes)]
    return made


def test_document_and_page_are_served_from_what_is_live() -> None:
    made = site()
    assert made.ask("GET /openapi.json").json["paths"] == {}
    made.bind("GET /hello/:name")
    document = made.ask("GET /openapi.json").json
    assert document["paths"]["/hello/{name}"]["get"]["summary"] == "Greets."
    page = made.ask("GET /docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src" not in page.headers["content-security-policy"]
    assert b"Greets." in page.body
    assert made.ask("POST /docs").status == 404


def test_a_route_of_ones_own_goes_first() -> None:
    made = site()
    made.bind("GET /docs")
    assert made.ask("GET /docs").json == "route"


def test_a_route_with_a_parameter_does_not_hide_them() -> None:
    made = site()
    made.bind("GET /:name")
    made.bind("GET /*rest")
    assert made.ask("GET /openapi.json").json["openapi"] == "3.1.0"
    assert made.ask("GET /docs").headers["content-type"] == "text/html; charset=utf-8"
    assert made.ask("GET /docs/more").json == "route"
    assert made.ask("GET /other").json == "route"


def test_s09_the_page_is_not_framed_not_sniffed_and_sends_no_address_on() -> None:
    page = site().ask("GET /docs")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert (page.headers["x-content-type-options"], page.headers["referrer-policy"]) == ("nosniff", "no-referrer")
