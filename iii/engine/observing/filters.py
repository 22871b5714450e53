"""The language of observers' filters: JSON in, a check of one call out. Pure.

A filter is an object of paths with operators, `{"input.amount": {"$gte": 500}}`, and of `$and`, `$or` and `$not`. The
limits and the meaning are those of the public SDKs, which evaluate the same filters for the calls they run themselves.
Comparison never converts: `true` is not 1. A filter that was accepted never fails; it can only take too long, and then
`Steps` ends it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from iii.protocol.codec import encode_value

MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_SET, MAX_SEGMENTS, MAX_LITERAL_DEPTH = 8192, 8, 64, 256, 16, 32
# Beyond it two parsers may read the same number differently.
MAX_NUMBER = 2**53
ROOTS = ("input", "output", "error", "caller", "metadata")
# Comparisons for one call, by all of its observers: a few milliseconds.
MAX_STEPS = 20_000

_INDEX = re.compile(r"0|[1-9][0-9]{0,14}")


class InvalidFilter(ValueError):
    """The filter breaks the language; the message names the place."""


class TooManySteps(Exception):
    """The values are too large to be checked in time."""


class Document(Protocol):
    """What a filter reads: the roots of one call."""

    steps: Steps

    def value(self, root: str) -> Any:
        """Return a root's value, ABSENT if the call has none."""


class Steps:
    """The comparisons that are left for one call."""

    def __init__(self, left: int = MAX_STEPS) -> None:
        self.left = left

    def take(self, count: int = 1) -> None:
        """Raise `TooManySteps` if there are not as many left."""
        self.left -= count
        if self.left < 0:
            raise TooManySteps


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Any = _Absent()

# Whether a document matches; the second value is the element that `@` stands for.
_Clause = Callable[[Document, Any], bool]
_Operator = Callable[[Document, Any], bool]


class Filter:
    """A filter that was accepted. `clauses` is its normal form: the parts that all have to match."""

    def __init__(self, source: Any) -> None:
        """Raises `InvalidFilter`."""
        _check_object("the filter", source)
        size = len(encode_value(source))
        if size > MAX_BYTES:
            raise InvalidFilter(f"the filter has {size} bytes, at most {MAX_BYTES} may be")
        _check_numbers(source)
        self._parser = _Parser()
        self.clauses = list(_flattened(source))
        self._matches = self._parser.clauses(self.clauses, depth=1, is_element=False)
        self.roots = frozenset(self._parser.roots)

    @property
    def normal_form(self) -> dict[str, Any]:
        """The filter as the function's own worker gets it."""
        return {"$and": self.clauses} if self.clauses else {}

    def matches(self, document: Document) -> bool:
        """Raises `TooManySteps`."""
        return self._matches(document, ABSENT)


def _flattened(source: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Yield the clauses of an object, with those of its `$and`, each as an object of one key."""
    for key, value in source.items():
        if key == "$and":
            for part in _list(key, value):
                _check_object("a filter of `$and`", part)
                yield from _flattened(part)
        else:
            yield {key: value}


class _Parser:
    def __init__(self) -> None:
        self._nodes = 0
        self.roots: set[str] = set()

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise InvalidFilter(f"more than {MAX_NODES} operators")

    def filter(self, source: Any, *, depth: int, is_element: bool) -> _Clause:
        _check_object("a filter", source)
        return self.clauses(list(_flattened(source)), depth=depth, is_element=is_element)

    def clauses(self, parts: list[dict[str, Any]], *, depth: int, is_element: bool) -> _Clause:
        if depth > MAX_DEPTH:
            raise InvalidFilter(f"nested deeper than {MAX_DEPTH} levels")
        checks = [
            self._clause(key, value, depth, is_element=is_element) for part in parts for key, value in part.items()
        ]
        return _all(checks)

    def _clause(self, key: str, value: Any, depth: int, *, is_element: bool) -> _Clause:
        if key == "$or":
            self._count()
            parts = [self.filter(part, depth=depth + 1, is_element=is_element) for part in _list(key, value)]
            return lambda document, element: any(part(document, element) for part in parts)
        if key == "$not":
            self._count()
            part = self.filter(value, depth=depth + 1, is_element=is_element)
            return lambda document, element: not part(document, element)
        if key.startswith("$"):
            raise InvalidFilter(f"{key!r} stands where a path, `$and`, `$or` or `$not` does")
        root, segments = _path(key, is_element=is_element)
        if not is_element:
            self.roots.add(root)
        operators = self._operators(key, value, depth)

        def check(document: Document, element: Any) -> bool:
            found = _step(element if is_element else document.value(root), segments)
            return all(operator(document, found) for operator in operators)

        return check

    def _operators(self, path: str, source: Any, depth: int) -> list[_Operator]:
        if not isinstance(source, dict) or not source or not all(key.startswith("$") for key in source):
            raise InvalidFilter(f'`{path}` takes an object of operators, such as {{"$eq": ...}}, not {_kind(source)}')
        return [self._operator(path, name, operand, depth) for name, operand in source.items()]

    def _operator(self, path: str, name: str, operand: Any, depth: int) -> _Operator:
        self._count()
        make = _OPERATORS.get(name)
        if name == "$any":
            check = self._any(path, operand, depth)
        elif make is None:
            raise InvalidFilter(f"`{path}`: there is no operator {name!r}; {', '.join([*_OPERATORS, '$any'])} are")
        else:
            check = make(f"`{path}`: `{name}`", operand)
        cost = len(operand) if name in ("$in", "$nin") else 1

        def counted(document: Document, value: Any) -> bool:
            document.steps.take(cost)
            return check(document, value)

        return counted

    def _any(self, path: str, operand: Any, depth: int) -> _Operator:
        """An operator over arrays: for any element, all of these operators, or a filter whose paths begin with `@`."""
        _check_object(f"`{path}`: `$any`", operand)
        if depth + 1 > MAX_DEPTH:
            raise InvalidFilter(f"nested deeper than {MAX_DEPTH} levels")
        if operand and all(key in _OPERATORS or key == "$any" for key in operand):
            fits = _all(self._operators(path, operand, depth + 1))
        else:
            fits = self.filter(operand, depth=depth + 1, is_element=True)

        def check(document: Document, value: Any) -> bool:
            if not isinstance(value, list):
                return False
            document.steps.take(len(value))
            return any(fits(document, element) for element in value)

        return check


def _all(checks: list[_Clause]) -> _Clause:
    return lambda document, value: all(check(document, value) for check in checks)


# Operators: each takes the words for its place and its operand, and returns the check of a value.


def _equal(place: str, operand: Any) -> _Operator:
    _check_literal(place, operand)
    return lambda _, value: value is not ABSENT and is_equal(value, operand)


def _not_equal(place: str, operand: Any) -> _Operator:
    _check_literal(place, operand)
    return lambda _, value: value is ABSENT or not is_equal(value, operand)


def _in(place: str, operand: Any) -> _Operator:
    items = _set(place, operand)
    return lambda _, value: value is not ABSENT and any(is_equal(value, item) for item in items)


def _not_in(place: str, operand: Any) -> _Operator:
    items = _set(place, operand)
    return lambda _, value: value is ABSENT or not any(is_equal(value, item) for item in items)


def _ordered(accepts: Callable[[Any, Any], bool]) -> Callable[[str, Any], _Operator]:
    def make(place: str, operand: Any) -> _Operator:
        if isinstance(operand, str):
            return lambda _, value: isinstance(value, str) and accepts(value, operand)
        if _is_number(operand):
            return lambda _, value: _is_number(value) and accepts(_double(value), _double(operand))
        raise InvalidFilter(f"{place} takes a number or a string, not {_kind(operand)}")

    return make


def _exists(place: str, operand: Any) -> _Operator:
    if not isinstance(operand, bool):
        raise InvalidFilter(f"{place} takes true or false, not {_kind(operand)}")
    return lambda _, value: (value is not ABSENT) is operand


def _prefix(place: str, operand: Any) -> _Operator:
    if not isinstance(operand, str):
        raise InvalidFilter(f"{place} takes a string, not {_kind(operand)}")
    return lambda _, value: isinstance(value, str) and value.startswith(operand)


_OPERATORS: dict[str, Callable[[str, Any], _Operator]] = {
    "$eq": _equal,
    "$ne": _not_equal,
    "$in": _in,
    "$nin": _not_in,
    "$gt": _ordered(lambda value, bound: value > bound),
    "$gte": _ordered(lambda value, bound: value >= bound),
    "$lt": _ordered(lambda value, bound: value < bound),
    "$lte": _ordered(lambda value, bound: value <= bound),
    "$exists": _exists,
    "$prefix": _prefix,
}


def is_equal(value: Any, literal: Any) -> bool:
    """Whether two JSON values are the same: 1 is 1.0, but `true` is not 1. As deep as the literal at most."""
    if isinstance(literal, bool) or literal is None:
        return value is literal
    if _is_number(literal):
        return _is_number(value) and _double(value) == _double(literal)
    if isinstance(literal, list):
        return isinstance(value, list) and len(value) == len(literal) and all(map(is_equal, value, literal))
    if isinstance(literal, dict):
        is_alike = isinstance(value, dict) and value.keys() == literal.keys()
        return is_alike and all(is_equal(value[key], part) for key, part in literal.items())
    return isinstance(value, str) and bool(value == literal)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _double(value: float) -> float:
    """Return a number as the other implementations read it."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _path(text: str, *, is_element: bool) -> tuple[str, list[str]]:
    """Return the root and the segments of a path; a backslash takes a dot or a backslash for itself."""
    segments, current, characters = [], "", iter(text)
    for character in characters:
        if character == "\\":
            escaped = next(characters, "")
            if escaped not in (".", "\\"):
                raise InvalidFilter(f"path {text!r}: only `\\.` and `\\\\` are escapes")
            current += escaped
        elif character == ".":
            segments.append(current)
            current = ""
        else:
            current += character
    root, *rest = [*segments, current]
    if "" in (root, *rest):
        raise InvalidFilter(f"path {text!r} has an empty segment")
    if root not in (("@",) if is_element else ROOTS):
        roots = "@, the element" if is_element else ", ".join(ROOTS)
        raise InvalidFilter(f"path {text!r} begins with {root!r}; it may begin with {roots}")
    if len(rest) > MAX_SEGMENTS:
        raise InvalidFilter(f"path {text!r} has {len(rest)} segments after its root, at most {MAX_SEGMENTS} may be")
    return root, rest


def _step(value: Any, segments: list[str]) -> Any:
    for segment in segments:
        if isinstance(value, dict):
            value = value.get(segment, ABSENT)
        elif isinstance(value, list) and _INDEX.fullmatch(segment) and int(segment) < len(value):
            value = value[int(segment)]
        else:
            return ABSENT
    return value


def _check_object(place: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise InvalidFilter(f"{place} must be an object, not {_kind(value)}")


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InvalidFilter(f"`{name}` takes an array of at least one filter, not {_kind(value)}")
    return value


def _set(place: str, operand: Any) -> list[Any]:
    if not isinstance(operand, list):
        raise InvalidFilter(f"{place} takes an array, not {_kind(operand)}")
    if len(operand) > MAX_SET:
        raise InvalidFilter(f"{place} has {len(operand)} items, at most {MAX_SET} may be")
    for item in operand:
        _check_literal(place, item)
    return operand


def _check_literal(place: str, literal: Any, level: int = 0) -> None:
    if isinstance(literal, list | dict):
        if level == MAX_LITERAL_DEPTH:
            raise InvalidFilter(f"{place} has a value nested deeper than {MAX_LITERAL_DEPTH} levels")
        for part in literal.values() if isinstance(literal, dict) else literal:
            _check_literal(place, part, level + 1)


def _check_numbers(value: Any) -> None:
    if isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            _check_numbers(part)
    elif _is_number(value) and not abs(value) <= MAX_NUMBER:
        raise InvalidFilter("a number is outside of ±2^53")


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list):
        return "an array" if value else "an empty array"
    return "a string" if isinstance(value, str) else "a number"
