"""What is written for a class does what the loop over its fields does, on any values of any classes."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from typing import Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii.errors import InvocationError
from iii.worker.functions.construction import ObjectConverter
from iii.worker.functions.conversion import convert_fields, converter_from_hint
from iii.worker.functions.handler import typed_handler_from

T = TypeVar("T")


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Inner:
    count: int
    at: datetime.date | None = None


HINTS: list[Any] = [
    *(int, str, Any, int | None, int | str, list[int], dict[str, int], Level, Literal[1, 3], Literal["a"]),
    *(datetime.date, datetime.date | None, Inner, Inner | None, list[Inner], tuple[int, ...], list[Level | None]),
]
VALUES = st.recursive(
    st.sampled_from([None, True, 3, 3.0, 1.5, "a", "2026-05-01", "x"]),
    lambda parts: (
        st.lists(parts, max_size=2) | st.fixed_dictionaries({"count": parts}, optional={"at": parts, "more": parts})
    ),
    max_leaves=4,
)
NAMES = ["a", "b", "c", "item_0", "value", "convert"]
MISSING: Any = object()


@st.composite
def classes(draw: st.DrawFn) -> Any:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
    fields: list[Any] = []
    for name in names:
        kind = draw(st.sampled_from(["required", "default", "factory", "keyword", "not given"]))
        field = {
            "required": dataclasses.field(),
            "default": dataclasses.field(default=3),
            "factory": dataclasses.field(default_factory=list),
            "keyword": dataclasses.field(kw_only=True),
            "not given": dataclasses.field(default="own", init=False),
        }[kind]
        fields.append((name, draw(st.sampled_from(HINTS)), field))
    fields.sort(key=lambda each: each[2].default is not dataclasses.MISSING or each[2].default_factory is not MISSING)
    fields.sort(key=lambda each: not is_required(each[2]))
    if draw(st.booleans()):
        return TypedDict("Drawn", {name: hint for name, hint, _ in fields})  # type: ignore[operator]
    return dataclasses.make_dataclass("Drawn", fields, frozen=draw(st.booleans()), slots=draw(st.booleans()))


def is_required(field: Any) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def outcome(convert: Any, value: Any) -> Any:
    try:
        return repr(convert(value))
    except (ValueError, TypeError, AttributeError) as error:
        return type(error), str(error)


@given(classes(), st.data())
def test_what_is_written_for_a_class_does_what_the_loop_does(cls: Any, data: st.DataObject) -> None:
    convert = converter_from_hint(cls)
    hints = cls.__annotations__
    fields = {name: converter_from_hint(hint) for name, hint in hints.items()}
    made = cls if dataclasses.is_dataclass(cls) else None
    # Of several values that are wrong, any may be named: the others here are right, and no key is unknown beside it.
    value = data.draw(st.fixed_dictionaries({}, optional={name: VALUES for name in [*hints, "unknown"]}) | VALUES)
    reasons = set()
    if isinstance(value, dict):
        for name in hints:
            if name in value and fields[name] is not None:
                reason = outcome(fields[name], value[name])
                reasons |= {reason} if isinstance(reason, tuple) else set()
    expected = outcome(lambda item: convert_fields(item, made, fields), value)
    if convert is None:
        assert made is None
        assert not any(fields.values())
    elif isinstance(expected, tuple) and len(reasons) > 1:
        assert outcome(convert, value) in reasons
    else:
        assert outcome(convert, value) == expected


def test_a_class_with_a_constructor_of_its_own_is_made_by_it() -> None:
    @dataclasses.dataclass
    class Own:
        count: int

        def __init__(self, **fields: Any) -> None:
            self.count = fields["count"] + 1

    convert = converter_from_hint(Own)
    assert not isinstance(convert, ObjectConverter)
    assert convert is not None
    assert convert({"count": 1.0}).count == 2


def test_whatever_a_constructor_does_besides_setting_fields_is_done() -> None:
    made: list[Any] = []

    @dataclasses.dataclass
    class Checked:
        count: int

        def __setattr__(self, name: str, value: Any) -> None:
            made.append((name, value))
            super().__setattr__(name, value)

    @dataclasses.dataclass
    class Scaled:
        count: int
        factor: dataclasses.InitVar[int]

        def __post_init__(self, factor: int) -> None:
            self.count *= factor

    @dataclasses.dataclass
    class Base:
        count: int

    class Wrapped(Base):
        def __init__(self, count: int) -> None:
            made.append(self)
            super().__init__(count)

    @dataclasses.dataclass
    class Listed:
        first: list[int] = dataclasses.field(default_factory=lambda: made.append("first") or [1])
        second: list[int] = dataclasses.field(default_factory=lambda: made.append("second") or [2])

    def convert(cls: Any, value: Any) -> Any:
        converter = converter_from_hint(cls)
        assert converter is not None
        return converter(value)

    assert convert(Checked, {"count": 1}).count == 1
    assert convert(Scaled, {"count": 2, "factor": 3}).count == 6
    wrapped = convert(Wrapped, {"count": 1})
    assert wrapped.count == 1
    assert convert(Listed, {}) == Listed([1], [2])
    assert made == [("count", 1), wrapped, "first", "second"]


def test_a_constructor_runs_once_whatever_it_raises() -> None:
    calls = []

    @dataclasses.dataclass
    class Refusing:
        count: int

        def __post_init__(self) -> None:
            calls.append(self.count)
            raise TypeError("refused")

    convert = converter_from_hint(Refusing)
    assert convert is not None
    with pytest.raises(TypeError, match="refused"):
        convert({"count": 1, "more": 2})
    assert calls == [1]


def test_keys_that_are_no_identifiers_are_converted() -> None:
    cls = TypedDict("cls", {"a-b": int, "class": datetime.date, "it's": int})
    convert = converter_from_hint(cls)
    assert convert is not None
    value = {"a-b": 3.0, "class": "2026-05-01", "it's": 1}
    assert convert(value) == {"a-b": 3, "class": datetime.date(2026, 5, 1), "it's": 1}
    assert value["class"] == "2026-05-01"


class Place(NamedTuple):
    day: datetime.date
    number: int
    note: str = "none"


def test_a_named_tuple_comes_from_a_list() -> None:
    convert = converter_from_hint(Place)
    assert convert is not None
    assert convert(["2026-05-01", 3.0]) == Place(datetime.date(2026, 5, 1), 3)
    assert convert(["2026-05-01", 3, "x"]).note == "x"
    for wrong in (["2026-05-01"], ["2026-05-01", 3, "x", "y"], {"day": "2026-05-01"}, ["x", 3], ["2026-05-01", 1.5]):
        with pytest.raises((ValueError, TypeError)):
            convert(wrong)


@dataclasses.dataclass
class Tree:
    planted: datetime.date
    left: Tree | None = None
    branches: list[Tree] = dataclasses.field(default_factory=list)
    twigs: dict[str, Twig] = dataclasses.field(default_factory=dict)


class Twig(TypedDict):
    length: int
    tree: Tree


@dataclasses.dataclass
class Page(Generic[T]):
    items: list[T]
    count: int = 0


def test_a_class_that_holds_itself_is_made_at_every_depth() -> None:
    day = "2026-05-01"
    convert = converter_from_hint(list[Tree])
    assert convert is not None
    value: dict[str, Any] = {"planted": day}
    for _ in range(40):
        value = {"planted": day, "left": value, "twigs": {"a": {"length": 2.0, "tree": {"planted": day}}}}
    (tree,) = convert([value])
    for _ in range(40):
        assert tree.planted == datetime.date(2026, 5, 1)
        twig = tree.twigs["a"]
        assert (type(twig["length"]), twig["tree"]) == (int, Tree(datetime.date(2026, 5, 1)))
        tree = tree.left
    assert tree == Tree(datetime.date(2026, 5, 1))


def test_a_generic_class_is_made_with_its_arguments() -> None:
    convert = converter_from_hint(Page[Inner])
    assert convert is not None
    assert convert({"items": [{"count": 1.0}]}) == Page([Inner(1)])
    plain = converter_from_hint(Page)
    assert plain is not None
    assert plain({"items": [{"count": 1}]}) == Page([{"count": 1}])


@dataclasses.dataclass
class AtLeastTwo:
    count: int

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ValueError("too small")


def called(function: Any, payload: Any, metadata: Any = None) -> Any:
    handler = typed_handler_from("m::f", function, by_name=True)
    return handler.call(payload, metadata=metadata) if handler.takes_metadata else handler.call(payload)


def test_each_kind_of_parameter_gets_its_value() -> None:
    def nothing() -> Any:
        return "nothing"

    def only_metadata(metadata: Any) -> Any:
        return metadata

    def between(a: int, metadata: Any, b: int = 3) -> Any:
        return a, metadata, b

    def by_keyword(a: int, *, b: int, metadata: Any = None, c: Level | None = None) -> Any:
        return a, b, metadata, c

    assert called(nothing, None) == called(nothing, {}) == "nothing"
    assert called(only_metadata, {}, "who") == "who"
    assert called(between, {"a": 1.0}, "who") == (1, "who", 3)
    assert called(between, {"a": 1, "b": 2.0}, "who") == (1, "who", 2)
    assert called(by_keyword, {"b": 2, "a": 1}) == (1, 2, None, None)
    assert called(by_keyword, {"c": 3, "b": 2, "a": 1}, "who") == (1, 2, "who", Level.HIGH)


@pytest.mark.parametrize(
    ("payload", "path", "expected"),
    [
        ([1], "$", "an object"),
        ({}, "$.a", "a value"),
        ({"b": 1, "more": 1}, "$.a", "a value"),
        ({"a": 1, "more": 1}, "$.more", "one of a, b"),
        ({"a": 1, "metadata": 1}, "$.metadata", "one of a, b"),
        ({"a": "x"}, "a", "'x' is not an integer"),
        ({"a": 1, "b": {"count": 1, "at": "x"}}, "b.at", "a date such as 2026-05-01"),
    ],
)
def test_what_does_not_fit_is_named(payload: Any, path: str, expected: str) -> None:
    def function(a: int, b: Inner | None = None) -> None: ...

    for _ in range(2):
        with pytest.raises(InvocationError) as caught:
            called(function, payload)
        assert (caught.value.details["path"], caught.value.details["expected"]) == (path, expected)


@pytest.mark.parametrize(
    ("hint", "value", "path", "expected"),
    [
        (dict[str, Inner], {"x": {"count": 1}, "y": {"count": 1, "at": "x"}}, "a.y.at", "a date such as 2026-05-01"),
        (list[uuid.UUID], [str(uuid.UUID(int=1)), "x"], "a[1]", "a UUID such as 123e4567-e89b-12d3-a456-426614174000"),
        (decimal.Decimal | None, "1,5", "a", "a decimal number such as 1.50"),
        (bytes, "%", "a", "bytes in base64"),
        (datetime.datetime, "noon", "a", "a date and time such as 2026-05-01T12:00:00Z"),
        (datetime.time, "noon", "a", "a time such as 12:00:00"),
        (Tree, {"planted": "2026-05-01", "left": {"planted": "x"}}, "a.left.planted", "a date such as 2026-05-01"),
        (list[AtLeastTwo], [{"count": 2}, {"count": 1}], "a", "too small"),
    ],
)
def test_a_text_that_no_class_is_made_of_is_named_by_its_path(hint: Any, value: Any, path: str, expected: str) -> None:
    def function(a: Any) -> None: ...

    function.__annotations__["a"] = hint
    with pytest.raises(InvocationError) as caught:
        called(function, {"a": value})
    assert (caught.value.details["path"], caught.value.details["expected"]) == (path, expected)
    assert path in caught.value.message
    assert expected in caught.value.message
