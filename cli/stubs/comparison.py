"""What has changed between two contracts, and whether it breaks a call that was right before. Pure.

`_Comparison` finds what one schema admits and another does not. What the old one admitted and the new one does not is
lost, the other way round it is gained. `RULES` says for each kind of difference what losing and gaining it means for
a payload and for a result.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cli.stubs.contract import Function
from cli.stubs.shapes import merge, resolve_pointer

# Pairs of schemas that are compared for one function.
MAX_PAIRS = 20_000
MAX_LAYERS = 40  # references and `allOf` on top of each other
SHOWN = 60  # characters of a value in a text
ALL_TYPES = ("array", "boolean", "null", "number", "object", "string")
# keyword -> whether a larger value admits less; without the keyword everything is admitted
_LIMITS = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), True),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), False),
}
# With any other value of these less may be admitted.
_EXACT = (
    *("pattern", "format", "multipleOf", "uniqueItems", "contentEncoding", "contentMediaType"),
    *("not", "if", "then", "else", "contains", "minContains", "maxContains"),
    *("patternProperties", "propertyNames", "dependentRequired", "dependentSchemas"),
)


@dataclass(frozen=True)
class Meaning:
    """Whether a difference breaks callers, and its words: `{at}` is the place, `{old}` and `{new}` what was and is."""

    is_breaking: bool
    words: str


@dataclass(frozen=True)
class Rule:
    """What it means that a payload or a result has lost, or gained, what a difference is about."""

    payload_lost: Meaning
    payload_gained: Meaning
    result_lost: Meaning
    result_gained: Meaning


def _narrowing(words: str) -> Rule:
    """Return the rule of what must not get less in a payload, nor more in a result."""
    return Rule(Meaning(True, words), Meaning(False, words), Meaning(False, words), Meaning(True, words))


RULES = {
    "type": _narrowing("{at}: {new} now, was {old}"),
    "limit": _narrowing("{at}: {new} now, was {old}"),
    "value": Rule(
        Meaning(True, "{at} takes {old} no more"),
        Meaning(False, "{at} takes {new} now"),
        Meaning(False, "{at} is never {old} now"),
        Meaning(True, "{at} may be {new} now"),
    ),
    "required": Rule(
        Meaning(True, "needs {at} now"),
        Meaning(False, "needs {at} no more"),
        Meaning(False, "always gives {at} now"),
        Meaning(True, "may leave {at} out now"),
    ),
    "field": Rule(
        Meaning(True, "takes {at} no more"),
        Meaning(False, "takes {at} now"),
        Meaning(True, "gives {at} no more"),
        Meaning(False, "gives {at} now"),
    ),
    "more": Rule(
        Meaning(True, "takes no other keys in {at} now"),
        Meaning(False, "takes other keys in {at} now"),
        Meaning(False, "gives no other keys in {at} now"),
        Meaning(False, "may give other keys in {at} now"),
    ),
    "unknown": Rule(*[Meaning(True, "has changed in more places than can be compared")] * 4),
}


@dataclass(frozen=True)
class Change:
    """One change of one function."""

    function: Function
    is_breaking: bool
    text: str


@dataclass(frozen=True)
class Difference:
    """Something that one schema admits and another does not: `RULES` has its kind; `mine` and `other` are values."""

    rule: str
    at: str
    mine: str = ""
    other: str = ""


def changes_between(before: Iterable[Function], after: Iterable[Function]) -> list[Change]:
    """Return what has changed from one contract to another, by function; the breaking changes of a function first."""
    olds = {(each.namespace, each.id): each for each in before}
    news = {(each.namespace, each.id): each for each in after}
    changes = []
    for key in sorted(olds.keys() | news.keys()):
        if key not in news:
            changes.append(Change(olds[key], True, "is gone"))
        elif key not in olds:
            changes.append(Change(news[key], False, "is new"))
        elif olds[key] != news[key]:
            changes += _changes_of(olds[key], news[key])
    return changes


def _changes_of(old: Function, new: Function) -> list[Change]:
    texts: dict[str, bool] = {}
    for is_payload, before, after in ((True, old.request, new.request), (False, old.response, new.response)):
        root = "the payload" if is_payload else "the result"
        lost, gained = differences(before, after), differences(after, before)
        gone = {each.at for each in lost if each.rule == "field"}
        needed = {each.at for each in lost if each.rule == "required"}
        # A key that is gone need not be said to be no more required, nor one that is required now to be taken.
        gained = [each for each in gained if each.at not in {"required": gone, "field": needed}.get(each.rule, ())]
        for each in (*lost, *gained):
            rule, is_lost = RULES[each.rule], each in lost
            if is_payload:
                meaning = rule.payload_lost if is_lost else rule.payload_gained
            else:
                meaning = rule.result_lost if is_lost else rule.result_gained
            was, now = (each.mine, each.other) if is_lost else (each.other, each.mine)
            text = meaning.words.format(at=f"`{each.at}`" if each.at else root, old=was, new=now)
            texts[text] = texts.get(text, False) or meaning.is_breaking
    ordered = sorted(texts.items(), key=lambda item: not item[1])
    return [Change(new, breaks, text) for text, breaks in ordered or [("is described in other words", False)]]


def differences(one: Any, other: Any) -> list[Difference]:
    """Return what the schema `one` admits and `other` does not. None stands for no schema, which admits anything."""
    comparison = _Comparison(True if one is None else one, True if other is None else other)
    found = list(dict.fromkeys(comparison.differences()))
    return [Difference("unknown", "")] if comparison.is_exhausted else found


class _Comparison:
    def __init__(self, one: Any, other: Any) -> None:
        self._one, self._other = one, other
        self._pairs = 0
        self._open: set[str] = set()  # pairs that are being compared; a circle adds nothing

    @property
    def is_exhausted(self) -> bool:
        return self._pairs > MAX_PAIRS

    def differences(self) -> Iterator[Difference]:
        yield from self._compare(self._one, self._other, "")

    def _compare(self, one: Any, other: Any, at: str) -> Iterator[Difference]:
        one, other = _flat(one, self._one), _flat(other, self._other)
        pair = json.dumps([one, other], sort_keys=True)
        self._pairs += 1
        if pair in self._open or self.is_exhausted:
            return
        self._open.add(pair)
        ones, others = self._forms(one, self._one, set()), self._forms(other, self._other, set())
        for form in ones:
            yield from self._admitted(form, others, at, is_only=len(ones) == len(others) == 1)
        self._open.discard(pair)

    def _forms(self, schema: Any, root: Any, seen: set[str]) -> list[Any]:
        """Return the schemas of which a value has to fit one: those of anyOf and oneOf, and one for each type."""
        self._pairs += 1
        text = json.dumps(schema, sort_keys=True)
        if text in seen or self.is_exhausted:
            return []  # a form that is the schema itself adds nothing
        seen.add(text)
        if not isinstance(schema, dict):
            return [schema]
        for word in ("anyOf", "oneOf"):
            if isinstance(schema.get(word), list):
                base = {key: value for key, value in schema.items() if key != word}
                merged = (_flat(merge(base, _flat(option, root)), root) for option in schema[word])
                return [form for option in merged for form in self._forms(option, root, seen)]
        types = schema.get("type")
        if isinstance(types, list) and len(types) > 1 and _values(schema) is None:
            return [{**schema, "type": each} for each in types]
        return [schema]

    def _admitted(self, form: Any, others: list[Any], at: str, *, is_only: bool) -> Iterator[Difference]:
        """Compare with the form of the other schema that is nearest."""
        if form is False:
            return
        nearest: list[Difference] | None = None
        for other in others:
            found = list(self._of_form(form, other, at))
            if not found:
                return
            is_same_kind = is_only or (_types(form) == _types(other) and _values(other) is None)
            if is_same_kind and (nearest is None or len(found) < len(nearest)):
                nearest = found
        what = _shown(form)
        yield from [Difference("value", at, what, what)] if nearest is None else nearest

    def _of_form(self, one: Any, other: Any, at: str) -> Iterator[Difference]:
        values, other_values = _values(one), _values(other)
        if values is not None:
            for value in values:
                is_known = _holds(value, other_values) if other_values is not None else _type_of(value, other)
                if not is_known:
                    yield Difference("value", at, json.dumps(value), json.dumps(value))
            return
        types, other_types = _types(one), _types(other)
        is_covered = all(each in other_types or (each == "integer" and "number" in other_types) for each in types)
        if not is_covered or other_values is not None:
            yield Difference("type", at, _shown(one), _shown(other))
            return
        one, other = (schema if isinstance(schema, dict) else {} for schema in (one, other))
        yield from _of_limits(one, other, at)
        if "object" in types:
            yield from self._of_objects(one, other, at)
        if "array" in types:
            yield from self._of_arrays(one, other, at)

    def _of_objects(self, one: dict[str, Any], other: dict[str, Any], at: str) -> Iterator[Difference]:
        properties, other_properties = one.get("properties", {}), other.get("properties", {})
        for key in other.get("required", ()):
            if key not in one.get("required", ()):
                yield Difference("required", _inside(at, key))
        for key, schema in properties.items():
            if key in other_properties:
                yield from self._compare(schema, other_properties[key], _inside(at, key))
            else:
                yield Difference("field", _inside(at, key))
        more, other_more = one.get("additionalProperties", True), other.get("additionalProperties", True)
        if other_more is False and more is not False:
            yield Difference("more", at)
        elif isinstance(other_more, dict) and more is not False:
            yield from self._compare(more, other_more, _inside(at, "*"))

    def _of_arrays(self, one: dict[str, Any], other: dict[str, Any], at: str) -> Iterator[Difference]:
        places, items = _places(one)
        other_places, other_items = _places(other)
        for index in range(max(len(places), len(other_places))):
            place = places[index] if index < len(places) else items
            other_place = other_places[index] if index < len(other_places) else other_items
            yield from self._compare(place, other_place, f"{at}[{index}]")
        yield from self._compare(items, other_items, f"{at}[]")


def _places(schema: dict[str, Any]) -> tuple[list[Any], Any]:
    """Return the schemas of an array's places, and of the items behind them."""
    items = schema.get("items", True)
    if isinstance(items, list):  # how earlier drafts wrote it, and Rust's SDK does
        return items, schema.get("additionalItems", True)
    return schema.get("prefixItems", []), items


def _of_limits(one: dict[str, Any], other: dict[str, Any], at: str) -> Iterator[Difference]:
    for word, is_least in _LIMITS.items():
        if word in other:
            limit, mine = other[word], one.get(word)
            if mine is None or (limit > mine if is_least else limit < mine):
                yield Difference("limit", at, _limit(word, one), _limit(word, other))
    for word in _EXACT:
        if word in other and one.get(word) != other[word]:
            yield Difference("limit", at, _limit(word, one), _limit(word, other))


def _limit(word: str, schema: dict[str, Any]) -> str:
    return f"{word} {_cut(json.dumps(schema[word]))}" if word in schema else f"no {word}"


def _flat(schema: Any, root: Any) -> Any:
    """Return a schema with the references and `allOf` at its top laid into it."""
    for _ in range(MAX_LAYERS):
        if not isinstance(schema, dict) or not ("$ref" in schema or isinstance(schema.get("allOf"), list)):
            return schema
        layers = [*schema.get("allOf", ())]
        if "$ref" in schema:
            target = resolve_pointer(root, str(schema["$ref"]))
            layers.insert(0, True if target is None else target)
        schema = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
        for layer in layers:
            schema = merge(schema, layer)
    return True


def _types(schema: Any) -> tuple[str, ...]:
    if not isinstance(schema, dict) or "type" not in schema:
        return ALL_TYPES if not isinstance(schema, dict) or "properties" not in schema else ("object",)
    types = schema["type"]
    return tuple(types) if isinstance(types, list) else (types,)


def _values(schema: Any) -> list[Any] | None:
    if isinstance(schema, dict) and "const" in schema:
        return [schema["const"]]
    enum = schema.get("enum") if isinstance(schema, dict) else None
    return enum if isinstance(enum, list) else None


def _holds(value: Any, values: list[Any]) -> bool:
    text = json.dumps(value, sort_keys=True)
    return any(json.dumps(each, sort_keys=True) == text for each in values)


def _type_of(value: Any, schema: Any) -> bool:
    """Tell whether a schema without values has the type of this value."""
    names = {str: "string", bool: "boolean", list: "array", dict: "object", type(None): "null", float: "number"}
    types = _types(schema)
    return names.get(type(value), "integer") in types or (type(value) is int and "number" in types)


def _shown(schema: Any) -> str:
    values = _values(schema)
    if values is not None:
        return _cut(" or ".join(json.dumps(value) for value in values))
    types = _types(schema)
    return "anything" if types == ALL_TYPES else " or ".join(types)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _inside(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key
