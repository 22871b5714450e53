"""The arguments that an event gives: sources, types, mistakes and what they may show, and the check of a config."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii.arguments import MAX_ARGUMENTS, MAX_MISTAKES, Arguments, Mistake, arguments_from, check_config
from iii.engine.routing.payload_schemas import explain

REQUEST = {
    "method": "POST",
    "path": "/orders/:id",
    "path_params": {"id": "7", "rest": "a/b"},
    "query_params": {"page": "2", "tag": "y", "ratio": "1.5", "dry": "TRUE"},
    "query_params_all": {"page": ["1", "2"], "tag": ["x", "y"], "number": ["1", "2"]},
    "headers": {
        "x-token": "abc",
        "x-list": "1, 2",
        "cookie": 'a=1; session="s=1"; c',
        "content-type": "application/json",
    },
    "body": {"item": "tea", "quantity": 3, "file": {"filename": "a.txt", "content_base64": ""}},
}
EVENT = {"event_type": "state:updated", "new_value": {"id": 7, "user": {"name": "ada"}}, "old_value": None}


def read(event: Any, **sources: dict[str, Any]) -> dict[str, Any]:
    check_config({"payload": "arguments", "arguments": sources}, "http")
    arguments, found = Arguments(sources).read(event)
    assert found == []
    return arguments


def mistakes(event: Any, **sources: dict[str, Any]) -> list[str]:
    return [str(mistake) for mistake in Arguments(sources).read(event)[1]]


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ({"in": "path", "name": "id", "type": "integer"}, 7),
        ({"in": "path", "name": "id"}, "7"),
        ({"in": "path", "name": "rest", "type": "array"}, ["a", "b"]),
        ({"in": "query", "name": "page", "type": "integer"}, 2),
        ({"in": "query", "name": "ratio", "type": "number"}, 1.5),
        ({"in": "query", "name": "page", "type": "number"}, 2),
        ({"in": "query", "name": "dry", "type": "boolean"}, True),
        ({"in": "query", "name": "tag", "type": "array"}, ["x", "y"]),
        ({"in": "query", "name": "number", "type": "array", "items": "integer"}, [1, 2]),
        ({"in": "header", "name": "X-Token"}, "abc"),
        ({"in": "header", "name": "X-List", "type": "array", "items": "integer"}, [1, 2]),
        ({"in": "cookie", "name": "a", "type": "integer"}, 1),
        ({"in": "cookie", "name": "session"}, "s=1"),
        ({"in": "cookie", "name": "a", "type": "array"}, ["1"]),
        ({"in": "form", "name": "item"}, "tea"),
        ({"in": "form", "name": "item", "type": "array"}, ["tea"]),
        ({"in": "file"}, {"filename": "a.txt", "content_base64": ""}),
        ({"in": "file", "type": "array"}, [{"filename": "a.txt", "content_base64": ""}]),
        ({"in": "body"}, REQUEST["body"]),
        ({"in": "body", "name": "quantity"}, 3),
        ({"in": "request"}, REQUEST),
        ({"in": "event"}, REQUEST),
        ({"in": "event", "name": "query_params.page"}, "2"),
        ({"value": None}, None),
        ({"value": {"in": "query"}}, {"in": "query"}),
    ],
    ids=json.dumps,
)
def test_each_source_has_its_value(source: dict[str, Any], value: Any) -> None:
    if "quantity" in source.get("name", ""):  # the other keys of the body are somebody's too
        assert read(REQUEST, file=source, item={"in": "body", "name": "item"}, f={"in": "form"})["file"] == value
    else:
        assert read(REQUEST, file=source) == {"file": value}


@pytest.mark.parametrize(
    "source",
    [
        *({"in": kind} for kind in ("path", "query", "header", "cookie", "form", "file", "query_or_body")),
        {"in": "body", "name": "nothing"},
        {"in": "event", "name": "a.b.c"},
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize(
    "event", [{}, {"body": {}, "headers": {"cookie": ";;="}}, None, 7, [], {"headers": None, "path_params": 3}]
)
def test_a_source_that_the_event_lacks_is_left_out_or_missing(source: dict[str, Any], event: Any) -> None:
    assert read(event, nothing=source) == {}
    (mistake,) = Arguments({"nothing": {**source, "type": "integer", "required": True}}).read(event)[1]
    expected = "a file" if source["in"] == "file" else "an integer"
    assert str(mistake).endswith(f": expected {expected}, got nothing")
    assert "got" not in mistake.fields


def test_a_scalar_is_in_the_query_or_else_a_key_of_the_body() -> None:
    quantity = {"in": "query_or_body", "type": "integer"}
    assert read({"query_params": {"quantity": "2"}, "body": {"quantity": 3}}, quantity=quantity) == {"quantity": 2}
    assert read({"body": {"quantity": 3}}, quantity=quantity) == {"quantity": 3}
    assert read({"body": {"quantity": "3"}}, quantity=quantity) == {"quantity": "3"}  # its schema refuses it
    form = {"headers": {"content-type": "application/x-www-form-urlencoded"}, "body": {"quantity": "3"}}
    assert read(form, quantity=quantity) == {"quantity": 3}


def test_a_body_that_is_read_by_its_keys_has_no_others() -> None:
    sources = {"item": {"in": "query_or_body"}, "other": {"in": "body", "name": "more"}}
    assert mistakes({"body": {"itme": 1, "more": 2}}, **sources) == [
        "body.itme: there is no such key; there are item, more"
    ]
    assert mistakes({"body": [1]}, **sources) == ["body: expected an object, got a list"]
    assert mistakes({"body": None}, **sources) == []
    required = {"item": {"in": "query_or_body", "required": True}, "n": {"in": "query_or_body", "type": "integer"}}
    assert mistakes({"body": {"n": 1}}, **required) == ["body.item: expected a value, got nothing"]
    assert mistakes({"query_params": {"n": "x"}}, **required) == [
        "query.item: expected a value, got nothing",
        'query.n: expected an integer, got "x"',
    ]
    wrong = Arguments(required).mistake_from(
        {"body": {"n": "x"}}, {"path": "n", "expected": "integer", "got": "x"}, "f: n must be an integer, got "
    )
    assert str(wrong) == 'body.n: expected an integer, got "x"'
    assert mistakes({"body": {"x": 1}}, **sources, whole={"in": "body"}) == []
    assert mistakes({"body": {"x": 1}}, **sources, request={"in": "request"}) == []


@pytest.mark.parametrize(
    ("type", "text", "expected"),
    [
        *(("integer", text, "an integer") for text in ("x", "", "1.0", "1_0", " 1", "٣", "0x1", "--1", "1" * 41)),
        *(("number", text, "a number") for text in ("x", "", "nan", "inf", "1e999", "1,5", "1_0.0", "١")),
        *(("boolean", text, "true or false") for text in ("x", "", "2", "truth")),
    ],
)
def test_a_text_of_another_type_is_a_mistake_with_place_and_value(type: str, text: str, expected: str) -> None:
    event = {"query_params": {"page": text}, "query_params_all": {"page": ["1", text]}}
    shown = json.dumps(text, ensure_ascii=False)
    assert mistakes(event, page={"in": "query", "type": type}) == [f"query.page: expected {expected}, got {shown}"]
    listed = mistakes(event, page={"in": "query", "type": "array", "items": type})
    assert listed == [f"query.page[1]: expected {expected}, got {shown}"]


def test_a_file_that_is_a_text_is_none() -> None:
    assert mistakes({"body": {"f": "x"}}, f={"in": "file"}) == ['file.f: expected a file, got "x"']


@pytest.mark.parametrize(
    ("event", "source"),
    [
        ({"headers": {"x-secret-thing": "hunter2"}}, {"in": "header", "name": "X-Count"}),
        ({"headers": {"x-count": "hunter2"}}, {"in": "header", "name": "X-Count"}),
        ({"headers": {"cookie": "count=hunter2"}}, {"in": "cookie", "name": "count"}),
        ({"query_params": {"api_key": "hunter2"}}, {"in": "query", "name": "api_key"}),
        ({"body": {"password": "hunter2"}}, {"in": "form", "name": "password"}),
        ({"query_params": {"note": "password=hunter2"}}, {"in": "query", "name": "note"}),
    ],
)
def test_a_mistake_shows_no_secret(event: Any, source: dict[str, Any]) -> None:
    _, found = Arguments({"n": {**source, "type": "integer", "required": True}}).read(event)
    assert len(found) == 1
    assert "hunter2" not in str(found[0]) + json.dumps(found[0].fields)


def test_a_long_value_is_not_repeated_and_mistakes_are_counted() -> None:
    many = {f"n{number}": {"in": "query", "required": True} for number in range(100)}
    assert len(mistakes({}, **many)) == MAX_MISTAKES
    assert mistakes({"query_params": {"n": "x" * 500}}, n={"in": "query", "type": "integer"}) == [
        "query.n: expected an integer, got a text of 500 characters"
    ]


def test_a_text_of_an_event_becomes_the_type_that_its_source_names() -> None:
    event = {"key": "7", "id": 7, "flag": "maybe", "list": "7"}
    key = {"in": "event", "type": "integer"}
    assert read(event, key=key | {"name": "key"}, id=key | {"name": "id"}) == {"key": 7, "id": 7}
    assert read(event, list={"in": "event", "name": "list", "type": "array"}) == {"list": "7"}
    wrong = mistakes(event, flag={"in": "event", "name": "flag", "type": "boolean"})
    assert wrong == ['event.flag: expected true or false, got "maybe"']


def test_a_number_that_cannot_be_written_out_is_described() -> None:
    details = {"path": "id", "expected": "string", "got": 10**5000}
    mistake = Arguments({"id": {"in": "query"}}).mistake_from({}, details, "f: id must be a string, got ...")
    assert str(mistake) == "query.id: expected a string, got a number of many digits"


def test_dotted_names_go_down_into_the_event() -> None:
    assert read(
        EVENT,
        value={"in": "event", "name": "new_value"},
        name={"in": "event", "name": "new_value.user.name"},
        old={"in": "event", "name": "old_value"},
        deep={"in": "event", "name": "old_value.id"},
    ) == {"value": EVENT["new_value"], "name": "ada", "old": None}


# What the function's schema refuses.

SOURCES = {
    "id": {"in": "path", "type": "integer"},
    "order": {"in": "body"},
    "extra": {"in": "body", "name": "more"},
    "token": {"in": "header", "name": "X-Token"},
    "tags": {"in": "query", "name": "tag", "type": "array"},
}
ORDER = {
    "type": "object",
    "properties": {
        "quantity": {"type": "integer", "minimum": 1},
        "item": {"enum": ["tea", "milk"]},
        "password": {"type": "string", "minLength": 8},
        "lines": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["item"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "maximum": 9},
        "order": ORDER,
        "extra": {"type": "boolean"},
        "token": {"type": "string", "maxLength": 3},
        "tags": {"type": "array", "minItems": 1},
    },
    "required": ["id"],
}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "path.id: expected an integer, got nothing"),
        ({"id": 10}, "path.id: expected at most 9, got 10"),
        ({"id": 1, "order": 5}, "body: expected an object, got 5"),
        ({"id": 1, "order": {"item": "tea", "quantity": "x"}}, 'body.quantity: expected an integer, got "x"'),
        ({"id": 1, "order": {"item": "tea", "quantity": 0}}, "body.quantity: expected at least 1, got 0"),
        ({"id": 1, "order": {"item": "no"}}, 'body.item: expected "tea" or "milk", got "no"'),
        ({"id": 1, "order": {}}, 'body.item: expected "tea" or "milk", got nothing'),
        ({"id": 1, "order": {"item": "tea", "lines": ["a", 1]}}, "body.lines[1]: expected a string, got 1"),
        (
            {"id": 1, "order": {"item": "tea", "x": 1}},
            "body: additional properties are not allowed ('x' was unexpected)",
        ),
        (
            {"id": 1, "order": {"item": "tea", "password": "short"}},
            "body.password: expected what the schema says, got another value",
        ),
        ({"id": 1, "extra": "x"}, 'body.more: expected a boolean, got "x"'),
        ({"id": 1, "token": "geheim"}, "header.X-Token: expected what the schema says, got another value"),
        ({"id": 1, "tags": []}, "query.tag: expected what the schema says, got a list"),
    ],
)
def test_what_the_schema_refuses_is_named_by_its_place_in_the_request(arguments: Any, text: str) -> None:
    details = explain(jsonschema_rs.validator_for(SCHEMA), SCHEMA, arguments)
    message = f"shop::order: {details.pop('message')}"
    assert str(Arguments(SOURCES).mistake_from({}, details, message)) == text


def test_what_a_worker_refuses_by_itself_is_named_as_well() -> None:
    arguments = Arguments({"day": {"in": "query"}, "when": {"in": "header", "name": "X-When"}})
    words = "Invalid isoformat string: 'soon'"
    details = {"path": "day", "expected": words, "got": "soon"}
    assert str(arguments.mistake_from({}, details, f"a::f: day: {words}")) == f"query.day: {words}"
    hidden = arguments.mistake_from({}, {**details, "path": "when"}, f"a::f: when: {words}")
    assert str(hidden) == "header.X-When: expected what the function takes, got another value"
    details = {"path": "$.day", "expected": "a value", "got": None}
    assert "query.day" in str(arguments.mistake_from({}, details, "a::f: $.day must be a value, got None"))
    assert str(arguments.mistake_from({}, {}, "no idea")).startswith("the arguments: ")


# The config.


def config(**sources: Any) -> dict[str, Any]:
    return {"payload": "arguments", "arguments": sources}


@pytest.mark.parametrize(
    ("trigger_type", "wrong", "words"),
    [
        ("http", config(page={"in": "qery"}), ('arguments.page: in must be "event" or', '"query"', 'got "qery"')),
        ("http", config(page={"in": "query", "typ": "integer"}), ("unknown key `typ`", "did you mean `type`?")),
        ("http", config(page={"in": "query", "type": "int"}), ("type must be", '"integer"', 'got "int"')),
        ("http", config(page={"in": "query", "items": "array"}), ("items must be",)),
        ("http", config(page={"in": "query", "required": "yes"}), ("required must be true or false",)),
        ("http", config(page={"in": "query", "name": ""}), ("name must be a string that is not blank",)),
        ("http", config(page={}), ('arguments.page needs "in"', '"value" alone')),
        ("http", config(page={"value": 1, "in": "query"}), ('arguments.page needs "in"',)),
        ("http", config(page={"value": 1, "required": True}), ('"value" alone',)),
        ("http", config(page=5), ("page must be a table", "got 5")),
        ("http", config(r={"in": "request", "name": "body"}), ("has no name",)),
        ("http", config(f={"in": "file", "type": "string"}), ("arguments.f", "leave it out")),
        ("cron", config(page={"in": "query"}), ('in must be "event"',)),
        ("state", {"payload": "arguments"}, ("0 to 256 names", "got nothing")),
        ("state", {"payload": "arguments", "arguments": []}, ("arguments must be a table",)),
        ("state", config(**{f"n{n}": {"value": n} for n in range(MAX_ARGUMENTS + 1)}), ("got 257 names",)),
        ("state", {"arguments": {"x": {"in": "event"}}}, ('needs payload = "arguments"',)),
        ("state", {"payload": "argument", "arguments": {}}, ("did you mean `arguments`?",)),
        ("state", {"payload": "evnt"}, ("did you mean `event`?",)),
    ],
    ids=str,
)
def test_a_wrong_config_is_refused_with_the_key_and_the_way_out(
    trigger_type: str, wrong: Any, words: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        check_config(wrong, trigger_type)
    assert all(word in str(refused.value) for word in words), str(refused.value)


@pytest.mark.parametrize(
    "harmless",
    [
        None,
        [],
        {},
        {"payload": {"a": 1}},
        {"payload": "event"},
        {"arguments": ["ls", "-l"]},
        {"arguments": {"a": 1}},
        config(),
    ],
    ids=str,
)
def test_a_config_that_says_nothing_about_arguments_passes(harmless: Any) -> None:
    check_config(harmless, "mine")


PARTS = ["path_params", "query_params", "query_params_all", "headers", "body", "a", "cookie", "content-type"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(PARTS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
TYPES = ["string", "integer", "number", "boolean", "array"]
SOURCE = st.fixed_dictionaries(
    {"in": st.sampled_from(["path", "query", "header", "cookie", "form", "file", "body", "query_or_body", "event"])},
    optional={
        "name": st.sampled_from([*PARTS, "a.b"]),
        "type": st.sampled_from(TYPES),
        "items": st.sampled_from(TYPES[:-1]),
        "required": st.booleans(),
    },
)


@given(JSON, st.dictionaries(st.sampled_from("abc"), SOURCE | st.fixed_dictionaries({"value": JSON})))
def test_any_event_gives_arguments_or_mistakes_and_never_raises(event: Any, sources: dict[str, Any]) -> None:
    arguments, found = Arguments(sources).read(event)
    assert arguments.keys() <= sources.keys()
    assert all(str(mistake) and json.dumps(mistake.fields) for mistake in found)
    required = {name for name, source in sources.items() if source.get("required")}
    assert found or required <= arguments.keys()
    for name, source in sources.items():
        if "value" in source:
            assert arguments[name] == source["value"]


@given(st.integers(-(10**39), 10**39), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_what_a_client_writes_as_json_writes_it_is_what_the_function_gets(
    number: int, ratio: float, flag: bool
) -> None:
    event = {"query_params": {"n": json.dumps(number), "r": json.dumps(ratio), "f": json.dumps(flag)}}
    arguments, found = Arguments(
        {
            "n": {"in": "query", "type": "integer"},
            "r": {"in": "query", "type": "number"},
            "f": {"in": "query", "type": "boolean"},
        }
    ).read(event)
    assert (arguments, found) == ({"n": number, "r": ratio, "f": flag}, [])


@given(JSON, JSON)
def test_whatever_a_check_accepts_can_be_carried_out(config: Any, event: Any) -> None:
    try:
        check_config(config, "http")
    except ValueError:
        return
    arguments = arguments_from(config)
    if arguments is not None:
        arguments.read(event)


def test_a_mistake_says_it_in_one_line() -> None:
    assert str(Mistake("query.page", "an integer", "x")) == 'query.page: expected an integer, got "x"'
    assert Mistake("query.page", "an integer", "x").fields == {
        "path": "query.page",
        "expected": "an integer",
        "got": "x",
    }
