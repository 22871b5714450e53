"""The functions of a contract as signatures under their names, with one table of the types that they share. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from cli.stubs.contract import DEFAULT_NAMESPACE, Function
from cli.stubs.shapes import (
    ANY,
    NEVER,
    NULL,
    Map,
    Object,
    Shape,
    Shapes,
    Union,
    names_in,
    pascal_case,
    renamed,
    shapes_of,
)


@dataclass(frozen=True)
class Signature:
    """How one function is called.

    `arguments`: the keys of its payload, None if the payload is no object. `payload` is the whole; `is_optional` says
    that a call may do without one.
    """

    function: Function
    payload: Shape
    arguments: Object | None
    is_optional: bool
    result: Shape


@dataclass
class Node:
    """What stands under one part of function ids; `signature` is the function that ends here."""

    children: dict[str, Node] = field(default_factory=dict)
    signature: Signature | None = None


@dataclass
class Signatures:
    """The functions of each namespace as a tree, and the shapes that the signatures refer to by name, sorted."""

    trees: dict[str, Node]
    named: dict[str, Shape]


@dataclass
class _Use:
    """The shapes of one schema, and what their names become."""

    prefix: str
    shapes: Shapes
    names: dict[str, str] = field(default_factory=dict)


def signatures_of(functions: Iterable[Function], reserved: Iterable[str] = ()) -> Signatures:
    """Return the signatures of a contract; no type gets a `reserved` name."""
    functions = list(functions)
    uses: dict[tuple[str, str, str], _Use] = {}
    for function in functions:
        for kind, schema in (("Payload", function.request), ("Result", function.response)):
            if schema is not None:
                prefix = f"{_type_prefix(function)}{kind}"
                uses[function.namespace, function.id, kind] = _Use(prefix, shapes_of(schema, prefix))
    _name_types(list(uses.values()), set(reserved))
    trees: dict[str, Node] = {}
    for namespace, group in groupby(functions, key=lambda function: function.namespace):
        trees[namespace] = Node()
        for function in group:
            node = trees[namespace]
            for segment in function.id.split("::"):
                node = node.children.setdefault(segment, Node())
            request = uses.get((namespace, function.id, "Payload"))
            response = uses.get((namespace, function.id, "Result"))
            node.signature = _signature(function, request, response)
    named = {
        use.names[name]: renamed(shape, use.names) for use in uses.values() for name, shape in use.shapes.named.items()
    }
    return Signatures(trees, dict(sorted(named.items())))


def _type_prefix(function: Function) -> str:
    namespace = "" if function.namespace == DEFAULT_NAMESPACE else pascal_case(function.namespace)
    return (namespace + pascal_case(function.id)) or "Function"


def _signature(function: Function, request: _Use | None, response: _Use | None) -> Signature:
    # No type checker accepts a function that must not return and does.
    result: Shape = ANY
    if response is not None and response.shapes.resolved(response.shapes.root) != NEVER:
        result = renamed(response.shapes.root, response.names)
    if request is None:
        return Signature(function, ANY, None, True, result)
    shape = renamed(request.shapes.root, request.names)
    members = request.shapes.root.members if isinstance(request.shapes.root, Union) else (request.shapes.root,)
    others = [member for member in members if member != NULL]
    arguments = request.shapes.resolved(others[0]) if len(others) == 1 else None
    if isinstance(arguments, Map):
        arguments = Object((), arguments.value)
    is_optional = NULL in members or ANY in members
    if not isinstance(arguments, Object):
        return Signature(function, shape, None, is_optional, result)
    whole = renamed(others[0], request.names)
    renamed_arguments = renamed(arguments, request.names)
    assert isinstance(renamed_arguments, Object)
    return Signature(function, whole, renamed_arguments, is_optional, result)


def _name_types(uses: list[_Use], reserved: set[str]) -> None:
    """Give each type its own name if all that have this name are equal, else one with the function's name before it."""
    bodies: dict[str, list[Shape]] = {}
    for use in uses:
        for name, shape in use.shapes.named.items():
            bodies.setdefault(name, []).append(shape)
    differing = {name for name, shapes in bodies.items() if any(shape != shapes[0] for shape in shapes)} | reserved
    # What refers to a type that differs differs as well.
    has_grown = True
    while has_grown:
        more = {name for name, shapes in bodies.items() if any(names_in(shape) & differing for shape in shapes)}
        has_grown = not more <= differing
        differing |= more
    taken = set(bodies) - differing | reserved
    for use in uses:
        for name in sorted(use.shapes.named):
            own = name
            if name in differing:
                qualified = name if name.startswith(use.prefix) else f"{use.prefix}{name}"
                own, number = qualified, 2
                while own in taken:
                    own, number = f"{qualified}{number}", number + 1
                taken.add(own)
            use.names[name] = own


def used_types(shapes: Iterable[Shape], named: Mapping[str, Shape]) -> set[str]:
    """Return the names that shapes refer to, also through other names."""
    found: set[str] = set()
    pending = [name for shape in shapes for name in names_in(shape)]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += names_in(named[name])
    return found
