"""What of the SDK takes values and returns values: ids, requests, actions, failures, signatures, files."""

from __future__ import annotations

import dataclasses
import enum
import functools
import uuid
from types import SimpleNamespace

import pytest

from iii import EnqueueResult, InvocationError, TriggerAction, TriggerRequest
from iii.ids import BATCH, mint_id, uuids_from_bytes
from iii.worker.api.requests import action_to_wire, message_from, request_from
from iii.worker.calls.call_table import prepare
from iii.worker.calls.errors import body_from_exception, error_from_body
from iii.worker.context.invocation import CURRENT, InvocationContext
from iii.worker.functions.handler import arguments_from, describe, handler_from, typed_handler_from
from iii.worker.functions.signature import is_coroutine_function, read_signature


def test_ids_are_uuids_and_never_repeat():
    ids = [mint_id() for _ in range(3 * BATCH)]
    assert len(set(ids)) == len(ids)
    assert all(str(uuid.UUID(item)) == item for item in ids)


def test_an_id_holds_all_its_random_bits():
    noise = bytes(range(32))
    assert [uuid.UUID(item).bytes for item in uuids_from_bytes(noise)] == [noise[:16], noise[16:]]


@pytest.mark.parametrize(
    ("action", "wire"),
    [
        (None, None),
        ({"type": "void"}, {"type": "void"}),
        (TriggerAction.Void(), {"type": "void"}),
        (TriggerAction.Enqueue(queue="mail"), {"type": "enqueue", "queue": "mail"}),
        (
            TriggerAction.Enqueue(queue="mail", delay_ms=5, group="g", key="k", priority=1),
            {"type": "enqueue", "queue": "mail", "delay_ms": 5, "group": "g", "key": "k", "priority": 1},
        ),
        (TriggerAction.of("delay", seconds=5), {"type": "delay", "seconds": 5}),
    ],
)
def test_actions_have_a_wire_form(action, wire):
    assert action_to_wire(action) == wire


def test_an_action_that_is_none_is_refused():
    with pytest.raises(TypeError, match="not 'void'"):
        action_to_wire("void")


def test_a_receipt_is_a_dict_with_an_attribute():
    assert EnqueueResult({"messageReceiptId": "r"}).messageReceiptId == "r"


@pytest.mark.parametrize(
    "request_",
    [
        {"function_id": "m::f", "payload": 1},
        TriggerRequest("m::f", 1),
        SimpleNamespace(function_id="m::f", payload=1),
    ],
)
def test_a_request_may_be_dict_or_object(request_):
    request = request_from(request_)
    assert (request.function_id, request.payload, request.timeout_ms) == ("m::f", 1, None)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"function_id": " "},
        {"function_id": 5},
        {"function_id": "f", "timeout_ms": 0},
        {"function_id": "f", "timeout_ms": "1s"},
        {"function_id": "f", "timeout_ms": True},
    ],
)
def test_a_wrong_request_is_refused(fields):
    with pytest.raises(ValueError, match=r"function_id|timeout_ms"):
        request_from(fields)


@pytest.mark.parametrize(
    ("function_id", "given", "own", "expected"),
    [
        ("m::f", None, None, None),
        ("m::f", None, "shop", "shop"),
        ("m::f", "bank", "shop", "bank"),
        ("engine::workers::list", None, "shop", "default"),
        ("configuration::get", None, None, "default"),
    ],
)
def test_calls_go_to_the_workers_namespace_unless_it_is_the_engines_function(function_id, given, own, expected):
    message = message_from(TriggerRequest(function_id, namespace=given), own)
    assert message.get("namespace") == expected


def test_a_deadline_is_on_the_wire_only_when_somebody_set_one():
    assert "deadline_ms" not in prepare(TriggerRequest("f"), None, None)
    assert prepare(TriggerRequest("f"), None, 500)["deadline_ms"] == 500
    assert prepare(TriggerRequest("f", timeout_ms=70), None, 500)["deadline_ms"] == 70


def test_an_inner_call_names_its_caller_and_keeps_to_its_budget():
    token = CURRENT.set(InvocationContext({"function_id": "a::b", "invocation_id": "i9", "deadline_ms": 1000}))
    try:
        message = prepare(TriggerRequest("f", timeout_ms=60_000), None, None)
    finally:
        CURRENT.reset(token)
    assert message["caller"] == {"function_id": "a::b", "invocation_id": "i9"}
    assert 0 < message["deadline_ms"] <= 1000


def test_an_inner_call_goes_on_with_its_callers_trace_unless_it_brings_one():
    own, other = {"traceparent": "00-a-b-01", "baggage": "k=v"}, {"traceparent": "00-c-d-01", "baggage": None}
    token = CURRENT.set(InvocationContext({"function_id": "a::b", "invocation_id": "i9", **own}))
    try:
        inherited = prepare(TriggerRequest("f"), None, None)
        brought = prepare(TriggerRequest("f", trace=other), None, None)
    finally:
        CURRENT.reset(token)
    assert {key: inherited.get(key) for key in own} == own
    assert (brought["traceparent"], "baggage" in brought) == ("00-c-d-01", False)


def test_an_inner_call_after_the_deadline_times_out_at_once():
    token = CURRENT.set(InvocationContext({"function_id": "a::b", "invocation_id": "i9", "deadline_ms": -1}))
    try:
        with pytest.raises(InvocationError, match="TIMEOUT"):
            prepare(TriggerRequest("f"), None, None)
    finally:
        CURRENT.reset(token)


def test_a_raised_exception_becomes_message_type_and_trace():
    try:
        raise KeyError("missing")
    except KeyError as error:
        body = body_from_exception(error)
    assert body["code"] == "invocation_failed"
    assert body["message"] == "'missing'"
    assert body["details"] == {"exception": "KeyError"}
    assert "test_values.py" in body["stacktrace"]


def test_an_invocation_error_survives_the_wire():
    error = InvocationError("no_stock", "sold out", details={"left": 0}, retryable=True)
    again = error_from_body(body_from_exception(error), "f", "i")
    assert (again.code, again.message, again.details, again.retryable) == ("no_stock", "sold out", {"left": 0}, True)


@pytest.mark.parametrize("body", ["text", 5, {}, {"code": None, "message": ""}])
def test_a_malformed_error_body_is_unknown(body):
    assert error_from_body(body, "f", "i").code == "UNKNOWN"


class Callable:
    def __call__(self, payload, *, metadata):
        """Call it."""

    def method(self, payload):
        """Call the method."""

    async def later(self, payload):
        """Call it later."""


def test_signatures_are_read_from_every_kind_of_callable():
    thing = Callable()
    assert read_signature(thing.method).names == ["payload"]
    assert read_signature(thing).names == ["payload", "metadata"]
    assert read_signature(functools.partial(lambda a, b: a, 1)).names == ["b"]
    assert read_signature(lambda a, b=2, *, c, d=4: a).required == ["a", "c"]


def test_async_handlers_are_recognized_in_every_wrapping():
    thing = Callable()
    assert is_coroutine_function(thing.later)
    assert is_coroutine_function(functools.partial(thing.later))
    assert not is_coroutine_function(thing.method)
    assert not is_coroutine_function(len)


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        (lambda data: 0, False),
        (lambda data, metadata: 0, True),
        (lambda data, *, metadata=None: 0, True),
        (lambda metadata: 0, False),
        (lambda data, meta=None: 0, False),
    ],
)
def test_the_sidecar_goes_to_a_parameter_named_metadata_only(function, takes):
    assert handler_from("f", function).takes_metadata is takes


def test_a_typed_handler_gets_keys_as_arguments_and_keeps_its_defaults():
    def area(width: float, height: float = 2.0) -> float:
        return width * height

    assert typed_handler_from("f", area).call({"width": 3}) == 6


@pytest.mark.parametrize("name", ["payload", "data", "input", "anything"])
def test_a_single_untyped_parameter_gets_the_payload_whole(name):
    namespace: dict = {}
    exec(f"def f({name}): return {name}", namespace)
    assert typed_handler_from("f", namespace["f"]).call({"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    ("payload", "path"), [({}, "$.a"), ({"a": 1, "c": 2}, "$.c"), ([1], "$"), ({"a": 1, "metadata": 1}, "$.metadata")]
)
def test_arguments_that_do_not_fit_are_named(payload, path):
    signature = read_signature(lambda a, b=1, metadata=None: a)
    with pytest.raises(InvocationError) as caught:
        arguments_from(payload, signature, "f")
    assert caught.value.code == "invalid_payload"
    assert caught.value.details["path"] == path


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclasses.dataclass
class Guest:
    name: str
    size: Size = Size.SMALL
    notes: set[str] = dataclasses.field(default_factory=set)


def takes_guest(guest: Guest, size: Size = Size.LARGE, nights: int = 1):
    return [guest, size, nights]


def takes_keywords(guest: Guest, *, size: Size = Size.LARGE, nights: int = 1):
    return [guest, size, nights]


def takes_metadata_first(metadata, guest: Guest, size: Size = Size.LARGE, nights: int = 1):
    assert metadata == "sidecar"
    return [guest, size, nights]


def takes_metadata_last(guest: Guest, size: Size = Size.LARGE, nights: int = 1, metadata=None):
    assert metadata == "sidecar"
    return [guest, size, nights]


def takes_more(guest: Guest, size: Size = Size.LARGE, nights: int = 1, **more):
    return [guest, size, nights, *more]


GUESTS = [takes_guest, takes_keywords, takes_metadata_first, takes_metadata_last, takes_more]


@pytest.mark.parametrize("function", GUESTS)
def test_arguments_are_converted_and_defaults_are_not_whatever_the_signature(function):
    handler = typed_handler_from("f", function)
    sidecar = {"metadata": "sidecar"} if handler.takes_metadata else {}
    ada = {"name": "ada"}
    assert handler.call({"guest": ada}, **sidecar) == [Guest("ada"), Size.LARGE, 1]
    whole = {"nights": 3.0, "size": "small", "guest": {"size": "large", "notes": ["x"], "name": "ada", "age": 7}}
    assert handler.call(whole, **sidecar) == [Guest("ada", Size.LARGE, {"x"}), Size.SMALL, 3]
    assert whole["guest"]["size"] == "large"  # the message stays as it came


@pytest.mark.parametrize("function", GUESTS)
@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({"size": "small"}, "$.guest"),
        ({"size": "small", "nights": 1, "days": 1}, "$.guest"),
        ({"guest": {"name": "ada"}, "metadata": 1}, "$.metadata"),
        ({"guest": {"name": "ada"}, "size": "huge"}, "size"),
        ({"guest": {"name": "ada"}, "nights": "two"}, "nights"),
        ({"guest": {}}, "guest"),
        (None, "$.guest"),
        ("ada", "$"),
    ],
)
def test_arguments_that_do_not_fit_are_named_whatever_the_signature(function, payload, path):
    handler = typed_handler_from("f", function)
    if function is takes_more and path == "$.metadata":
        assert handler.call(payload)[-1] == "metadata"  # a name like any other where no parameter has it
        return
    with pytest.raises(InvocationError) as caught:
        handler.call(payload, **({"metadata": "sidecar"} if handler.takes_metadata else {}))
    assert (caught.value.code, caught.value.details["path"]) == ("invalid_payload", path)


def test_a_type_error_of_the_function_is_its_own():
    def fails(a: int) -> int:
        raise TypeError(f"no {a}")

    with pytest.raises(TypeError, match="no 1"):
        typed_handler_from("f", fails, by_name=True).call({"a": 1})


def test_docstring_and_hints_describe_a_function():
    def add(a: int, b: int = 1) -> int:
        """Add two
        numbers.

        More.
        """
        return a + b

    found = describe(add, typed=True)
    assert found["description"] == "Add two numbers."
    assert found["response_format"]["type"] == "integer"
    assert found["request_format"]["required"] == ["a"]
