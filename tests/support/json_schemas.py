"""JSON Schemas of every kind, and functions that have them, for hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from cli.stubs.contract import Function

# Names that are keywords, builtins, no identifiers, or of something the generated code uses itself.
KEYS = st.sampled_from(
    [
        *("id", "name", "class", "from", "self", "list", "int", "str", "None", "Any", "more", "payload", "__x", "a-b"),
        *(
            "",
            "9",
            "größe",
            "ﬁ",
            "Field",
            "Literal",
            "__proto__",
            "constructor",
            "then",
            "a b",
            'q"',
            "\\",
            "*/",
            '"""',
        ),
    ]
)
SEGMENTS = st.one_of(
    KEYS, st.sampled_from(["shop", "order", "Order", "_call", "__init__", "call", "worker", "toString", "Functions"])
)
TITLES = st.sampled_from(["Order", "new order", "Functions", "TypedDict", "Promise", "Caller", "é", "1st", "None"])
TEXTS = st.one_of(KEYS, st.text(max_size=8))
DEFINITIONS = ("Item", "Tree", "a/b")
REFERENCES = ("#", "#/$defs/Item", "#/$defs/Tree", "#/$defs/a~1b", "#/properties/id", "#/$defs/None", "https://x/y")
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from([1.5, [1], {"a": 1}]), TEXTS)


def _described(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    notes = st.fixed_dictionaries({}, optional={"title": TITLES, "description": TEXTS, "default": VALUES})
    return notes.map(lambda extra: {**schema, **extra})


def _grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    objects = st.fixed_dictionaries(
        {"type": st.sampled_from(["object", ["object", "null"]])},
        optional={
            "properties": st.dictionaries(KEYS, inner, max_size=4),
            "required": st.lists(KEYS, max_size=3, unique=True),
            "additionalProperties": st.one_of(st.booleans(), inner),
            "patternProperties": st.just({"^x": True}),
        },
    )
    arrays = st.fixed_dictionaries(
        {"type": st.just("array")},
        optional={"items": inner, "prefixItems": several, "minItems": st.integers(0, 3), "maxItems": st.integers(0, 3)},
    )
    combined = st.one_of(
        *(several.map(lambda options, word=word: {word: options}) for word in ("anyOf", "oneOf", "allOf")),
        st.tuples(st.sampled_from(REFERENCES), inner).map(
            lambda pair: {**(pair[1] if isinstance(pair[1], dict) else {}), "$ref": pair[0]}
        ),
        st.tuples(objects, several).map(lambda pair: {**pair[0], "anyOf": pair[1]}),
    )
    return st.one_of(objects, arrays, combined).flatmap(_described)


LEAVES = st.one_of(
    st.booleans(),
    st.just({}),
    st.sampled_from(["string", "integer", "number", "boolean", "null", "object", "array"]).map(
        lambda name: {"type": name}
    ),
    st.lists(VALUES, min_size=1, max_size=4).map(lambda values: {"enum": values}),
    VALUES.map(lambda value: {"const": value}),
    st.sampled_from(REFERENCES).map(lambda reference: {"$ref": reference}),
)
PARTS = st.recursive(LEAVES, _grown, max_leaves=8)
SCHEMAS = st.tuples(PARTS, st.dictionaries(st.sampled_from(DEFINITIONS), PARTS, max_size=3)).map(
    lambda pair: {**pair[0], "$defs": pair[1]} if isinstance(pair[0], dict) else pair[0]
)
IDS = st.lists(SEGMENTS, min_size=1, max_size=3).map("::".join)
FUNCTIONS = st.builds(
    Function,
    IDS,
    st.sampled_from(["default", "default", "eu", "", "é"]).map(lambda name: name or "default"),
    TEXTS.map(str.strip),
    st.one_of(st.none(), SCHEMAS),
    st.one_of(st.none(), SCHEMAS),
)
CONTRACTS = st.lists(FUNCTIONS, max_size=12, unique_by=lambda function: (function.namespace, function.id)).map(
    lambda functions: sorted(functions, key=lambda each: (each.namespace != "default", each.namespace, each.id))
)
