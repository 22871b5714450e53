"""Signatures -> the text of a Python module whose methods call the functions, typed for mypy and pyright. Pure.

The module needs the standard library and a worker, of this SDK or the public one. An item of a tuple can be any of the
tuple's: what comes from JSON is a list, which has one type of item in Python.
"""

from __future__ import annotations

import builtins
import keyword
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cli.stubs.contract import DEFAULT_NAMESPACE
from cli.stubs.shapes import (
    Array,
    Field,
    Literal,
    Map,
    Object,
    Plain,
    Ref,
    Shape,
    Tuple,
    Union,
    pascal_case,
    union_of,
)
from cli.stubs.signatures import Node, Signature, Signatures, used_types

_PLAIN = {
    **{"any": "Any", "never": "Never", "null": "None", "boolean": "bool", "integer": "int", "number": "float"},
    "string": "str",
}
# The module's own names: no type gets one of them.
RESERVED = {
    *("Any", "AsyncCaller", "AsyncFunctions", "Awaitable", "Callable", "Caller", "False", "Functions", "Literal"),
    *("Never", "None", "NotRequired", "Protocol", "True", "TypeAlias", "TypedDict", "UNSET"),
}
_BUILTINS = frozenset(("bool", "dict", "float", "int", "list", "str"))
WIDTH = 120

HEAD = '''\
"""The functions of this project, typed. Written by `iii types`; changes are overwritten.

    functions = Functions(worker)  # or AsyncFunctions, whose methods are awaited
"""

# mypy: disable-error-code="no-any-return"
# fmt: off
# ruff: noqa

from __future__ import annotations

import builtins
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Never, NotRequired, Protocol, TypeAlias, TypedDict

# Stands for an argument that is not given: the function's own default applies.
UNSET: Any = type("Unset", (), {"__repr__": lambda _: "UNSET"})()


class Caller(Protocol):
    """What calls a function: a worker."""

    def trigger(self, request: Any, /) -> Any: ...


class AsyncCaller(Protocol):
    """What calls a function and is awaited: a worker."""

    def trigger_async(self, request: Any, /) -> Awaitable[Any]: ...


def _request(function_id: str, payload: Any, namespace: str | None, timeout_ms: float | None) -> dict[str, Any]:
    if isinstance(payload, dict):
        payload = {name: value for name, value in payload.items() if value is not UNSET}
    options = {"namespace": namespace, "timeout_ms": timeout_ms}
    given = {name: value for name, value in options.items() if value is not None}
    return {"function_id": function_id, "payload": payload, **given}


def _caller(worker: Caller, timeout_ms: float | None) -> Callable[..., Any]:
    def call(function_id: str, payload: Any, namespace: str | None = None) -> Any:
        return worker.trigger(_request(function_id, payload, namespace, timeout_ms))

    return call


def _async_caller(worker: AsyncCaller, timeout_ms: float | None) -> Callable[..., Awaitable[Any]]:
    async def call(function_id: str, payload: Any, namespace: str | None = None) -> Any:
        return await worker.trigger_async(_request(function_id, payload, namespace, timeout_ms))

    return call
'''


@dataclass(frozen=True)
class _Side:
    """Which of the twins is written."""

    prefix: str  # of the classes
    define: str
    give: str
    caller: str  # the protocol
    make: str  # the function that makes `call`
    call: str  # the type of `call`


_SIDES = (
    _Side("", "def", "return", "Caller", "_caller", "Callable[..., Any]"),
    _Side("Async", "async def", "return await", "AsyncCaller", "_async_caller", "Callable[..., Awaitable[Any]]"),
)


def python_module(signatures: Signatures) -> str:
    """Return the text of the module; the same for the same signatures."""
    every = [each for tree in signatures.trees.values() for each in _signatures_below(tree)]
    used = used_types(_written(every), signatures.named)
    named = {name: shape for name, shape in signatures.named.items() if name in used}
    taken = {*named, *RESERVED}
    blocks = [HEAD, *(_type(name, shape, taken) for name, shape in named.items())]
    trees = signatures.trees or {}
    names: set[str] = set()
    for namespace in sorted({DEFAULT_NAMESPACE, *trees}, key=lambda name: (name != DEFAULT_NAMESPACE, name)):
        title = "" if namespace == DEFAULT_NAMESPACE else pascal_case(namespace) or "Namespace"
        root = _free(f"{title}Functions", names | (taken - {"Functions"}))
        names.add(root)
        for side in _SIDES:
            blocks += _classes(trees.get(namespace, Node()), f"{side.prefix}{root}", side, taken, names, is_root=True)
    return "\n\n".join(block.rstrip("\n") + "\n" for block in blocks)


def _written(signatures: Iterable[Signature]) -> Iterator[Shape]:
    """Yield the shapes that stand in the module: the arguments one by one, without the object around them."""
    for each in signatures:
        yield each.arguments or each.payload
        yield each.result


def _signatures_below(node: Node) -> Iterator[Signature]:
    if node.signature is not None:
        yield node.signature
    for _, child in sorted(node.children.items()):
        yield from _signatures_below(child)


# Types


def _type(name: str, shape: Shape, taken: set[str]) -> str:
    if not isinstance(shape, Object):
        return f"{name}: TypeAlias = {_quoted(text_of(shape))}\n"
    keys = {each.name for each in shape.fields}
    # Inside of a class a key hides the type of the same name.
    if all(_is_name(key) for key in keys) and not keys & (taken | _BUILTINS):
        lines = [f"class {name}(TypedDict):", *_docstring(_type_text(shape), "    ")]
        for each in shape.fields:
            lines += [f"    # {line}" for line in _lines(each.description)]
            lines.append(f"    {each.name}: {_field(each)}")
        if len(lines) == 1:
            lines.append("    pass")
        return "\n".join(lines) + "\n"
    fields = "".join(f"\n        {_quoted(each.name)}: {_quoted(_field(each))}," for each in shape.fields)
    comments = [f"# {line}" for line in _lines(_type_text(shape))]
    return "\n".join([*comments, f'{name} = TypedDict(\n    "{name}",\n    {{{fields}\n    }},\n)']) + "\n"


def _type_text(shape: Object) -> str:
    more = "" if shape.rest is None else "More keys are allowed."
    return f"{shape.description}\n\n{more}".strip()


def _field(each: Field) -> str:
    text = text_of(each.shape)
    return text if each.is_required else f"NotRequired[{text}]"


def text_of(shape: Shape, hidden: frozenset[str] = frozenset()) -> str:
    """Return a shape as an annotation; builtins that are `hidden` where it stands are written `builtins.NAME`."""

    def builtin(name: str) -> str:
        return f"builtins.{name}" if name in hidden else name

    match shape:
        case Plain(name):
            text = builtin(_PLAIN[name])
        case Literal(values):
            text = f"Literal[{', '.join(map(_quoted, values))}]"
        case Array(item):
            text = f"{builtin('list')}[{text_of(item, hidden)}]"
        case Tuple(items, rest):
            text = text_of(Array(union_of([*items, *([] if rest is None else [rest])])), hidden)
        case Map(value):
            text = f"{builtin('dict')}[{builtin('str')}, {text_of(value, hidden)}]"
        case Union(members):
            text = " | ".join(text_of(member, hidden) for member in members)
        case Ref(name):
            text = name
        case Object():
            raise AssertionError(f"{shape} has no name")
    return text


# Functions


def _classes(node: Node, name: str, side: _Side, taken: set[str], names: set[str], *, is_root: bool) -> list[str]:
    """Return the class of a node, after those of the nodes below it."""
    attributes = _identifiers(node.children, {"_call", *taken})
    methods = [segment for segment, child in node.children.items() if not child.children]
    hidden = frozenset(attributes[segment] for segment in methods) & _BUILTINS
    blocks, inner, lines = [], [], []
    for segment, child in sorted(node.children.items()):
        if segment in methods:
            assert child.signature is not None
            lines += ["", *_method(attributes[segment], child.signature, side, hidden)]
            continue
        class_name = _free(f"_{name.lstrip('_')}{pascal_case(segment) or 'Part'}", names)
        names.add(class_name)
        blocks += _classes(child, class_name, side, taken, names, is_root=False)
        inner.append(f"        self.{attributes[segment]} = {class_name}(call)")
    if is_root:
        number = "builtins.float" if "float" in hidden else "float"
        head = [
            f"class {name}:",
            *_docstring("The functions of the project, called through `worker`.", "    "),
            "",
            f"    def __init__(self, worker: {side.caller}, *, timeout_ms: {number} | None = None) -> None:",
            f"        self._call = call = {side.make}(worker, timeout_ms)",
        ]
    else:
        head = [
            f"class {name}:",
            f"    def __init__(self, call: {side.call}) -> None:",
            "        self._call = call",
        ]
    own = ["", *_method("__call__", node.signature, side, hidden)] if node.signature is not None else []
    return [*blocks, "\n".join([*head, *inner, *own, *lines]).replace("self._call = call = ", _assign(inner)) + "\n"]


def _assign(inner: list[str]) -> str:
    return "self._call = call = " if inner else "self._call = "


def _method(name: str, signature: Signature, side: _Side, hidden: frozenset[str]) -> Iterator[str]:
    function = signature.function
    parameters, payload, described = _parameters(signature, hidden)
    result = text_of(signature.result, hidden)
    line = f"    {side.define} {name}({', '.join(['self', *parameters])}) -> {result}:"
    if len(line) <= WIDTH:
        yield line
    else:
        yield f"    {side.define} {name}("
        yield from (f"        {parameter}," for parameter in ["self", *parameters])
        yield f"    ) -> {result}:"
    text = function.description or f"Call `{function.id}`."
    yield from _docstring(f"{text}\n\n{described}", "        ")
    namespace = "" if function.namespace == DEFAULT_NAMESPACE else f", {_quoted(function.namespace)}"
    yield f"        {side.give} self._call({_quoted(function.id)}, {payload}{namespace})"


def _parameters(signature: Signature, hidden: frozenset[str]) -> tuple[list[str], str, str]:
    """Return the parameters of a method, the expression of its payload, and what the docstring says of them."""
    any_text, payload = "Any", text_of(signature.payload, hidden)
    if signature.function.request is None:
        return [f"payload: {any_text} = None", "/", f"**fields: {any_text}"], "fields or payload", ""
    if signature.arguments is None:
        return [f"payload: {payload}{' = None' * signature.is_optional}", "/"], "payload", ""
    fields = signature.arguments.fields
    names = _identifiers([each.name for each in fields], {"self"})
    parameters = ["*"] if fields else []
    for each in sorted(fields, key=lambda each: not each.is_required):
        default = "" if each.is_required else " = UNSET"
        parameters.append(f"{names[each.name]}: {text_of(each.shape, hidden)}{default}")
    pairs = [f"{_quoted(each.name)}: {names[each.name]}" for each in fields]
    if signature.arguments.rest is not None:
        more = _free("more", set(names.values()))
        parameters.append(f"**{more}: {text_of(signature.arguments.rest, hidden)}")
        pairs.append(f"**{more}")
    texts = []
    for each in fields:
        text = " ".join(
            filter(None, [" ".join(_lines(each.description)), f"Default: {each.default}." * bool(each.default)])
        )
        texts += [f"    {names[each.name]}: {text}"] if text else []
    return parameters, f"{{{', '.join(pairs)}}}", "\n".join(["Args:", *texts]) if texts else ""


# Names and texts


def _identifiers(names: Iterable[str], taken: set[str]) -> dict[str, str]:
    """Return an identifier for each name: itself where that is one, else what it can be written as."""
    found = {name: name for name in names if _is_name(name) and name not in taken}
    for name in sorted(set(names) - found.keys()):
        plain = "".join(char if f"_{char}".isidentifier() else "_" for char in unicodedata.normalize("NFKC", name))
        plain = plain if plain.isidentifier() else f"_{plain}"
        plain = f"_{plain.lstrip('_')}" if plain.startswith("__") else plain
        plain = f"{plain}_" if keyword.iskeyword(plain) or plain in taken else plain
        found[name] = _free(plain, taken | set(found.values()))
    return found


def _free(name: str, taken: Iterable[str] | Mapping[str, object]) -> str:
    free, number = name, 2
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free


def _is_name(name: str) -> bool:
    # Names with two underscores before them become others inside of a class.
    is_written_so = name.isidentifier() and unicodedata.normalize("NFKC", name) == name
    return is_written_so and not keyword.iskeyword(name) and not name.startswith("__")


def _quoted(value: object) -> str:
    """Return a value as Python writes it, texts in double quotes where that needs no escape."""
    text = repr(value) if builtins.str(value).isprintable() else ascii(value)
    if isinstance(value, str) and '"' not in text and "\\" not in text:
        return f'"{text[1:-1]}"'
    return text


def _lines(text: str) -> list[str]:
    lines = ("".join(char if char.isprintable() else " " for char in line).rstrip() for line in text.splitlines())
    return list(lines)


def _docstring(text: str, indent: str) -> list[str]:
    lines = [line.replace("\\", "\\\\").replace('"""', '\\"\\"\\"') for line in _lines(text.strip())]
    if not lines:
        return []
    if len(lines) == 1 and not lines[0].endswith('"'):
        return [f'{indent}"""{lines[0]}"""']
    return [f'{indent}"""{lines[0]}', *(f"{indent}{line}".rstrip() for line in lines[1:]), f'{indent}"""']
