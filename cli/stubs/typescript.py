"""Signatures -> the declarations (`index.d.ts`) and the few lines (`index.js`) that call the functions. Pure.

They need the public npm SDK's worker, or anything with its `trigger`. Parts of ids keep their names: what is no
identifier is written as `functions.shop['get-user']`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from cli.stubs.contract import DEFAULT_NAMESPACE
from cli.stubs.shapes import NULL, Array, Literal, Map, Object, Plain, Ref, Shape, Tuple, Union, pascal_case
from cli.stubs.signatures import Node, Signature, Signatures, used_types

_PLAIN = {"any": "any", "never": "never", "null": "null", "integer": "number", "number": "number"}
# The declarations' own names, and those of the language that are used in them.
RESERVED = {"Array", "CallOptions", "Caller", "Functions", "Object", "Promise", "Record"}
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")

DECLARATIONS_HEAD = """\
// The functions of this project, typed. Written by `iii types`; changes are overwritten.

/** What calls a function: a worker. */
export interface Caller {
  trigger(request: any): Promise<any>
}

export interface CallOptions {
  /** Milliseconds after which the call is given up. */
  timeoutMs?: number
}
"""

SCRIPT_HEAD = """\
// The functions of this project. Written by `iii types`; changes are overwritten.

const caller = (worker) => (function_id, { namespace, nothing = {} } = {}) => (payload = nothing, options = {}) =>
  worker.trigger({ function_id, payload, ...(namespace && { namespace }), ...options })

// A function that has others below it.
const both = (call, below) => {
  for (const name of Object.keys(below)) Object.defineProperty(call, name, { value: below[name], enumerable: true })
  return call
}
"""


def declarations(signatures: Signatures) -> str:
    """Return the text of `index.d.ts`; the same for the same signatures."""
    every = [each for tree in signatures.trees.values() for each in _signatures_below(tree)]
    used = used_types((shape for each in every for shape in (each.payload, each.result)), signatures.named)
    blocks = [DECLARATIONS_HEAD, *(_type(name, shape) for name, shape in signatures.named.items() if name in used)]
    for name, tree in _roots(signatures):
        members = "\n".join(_members(tree, "  "))
        interface = _free(f"{name[0].upper()}{name[1:]}", used | RESERVED - {"Functions"})
        blocks.append(f"export interface {interface} {{\n{members}\n}}\n")
        blocks.append(f"export function {name}(worker: Caller): {interface}\n")
    return "\n".join(blocks)


def script(signatures: Signatures) -> str:
    """Return the text of `index.js`."""
    blocks = [SCRIPT_HEAD]
    for name, tree in _roots(signatures):
        lines = "\n".join(_values(tree, "    "))
        blocks.append(
            f"export function {name}(worker) {{\n  const call = caller(worker)\n  return {{\n{lines}\n  }}\n}}\n"
        )
    return "\n".join(blocks)


def _roots(signatures: Signatures) -> Iterator[tuple[str, Node]]:
    """Yield the function that is exported for each namespace, and its tree."""
    yield "functions", signatures.trees.get(DEFAULT_NAMESPACE, Node())
    taken = {"functions"}
    for namespace in sorted(signatures.trees.keys() - {DEFAULT_NAMESPACE}):
        title = pascal_case(namespace) or "Namespace"
        name = _free(f"{title[0].lower()}{title[1:]}Functions", taken)
        taken.add(name)
        yield name, signatures.trees[namespace]


def _signatures_below(node: Node) -> Iterator[Signature]:
    if node.signature is not None:
        yield node.signature
    for _, child in sorted(node.children.items()):
        yield from _signatures_below(child)


def _type(name: str, shape: Shape) -> str:
    if not isinstance(shape, Object):
        return f"export type {name} = {text_of(shape)}\n"
    if not shape.fields:
        rest = "never" if shape.rest is None else text_of(shape.rest)
        return "\n".join([*_comment(shape.description, ""), f"export type {name} = {{ [key: string]: {rest} }}\n"])
    lines = [*_comment(shape.description, ""), f"export interface {name} {{"]
    for each in shape.fields:
        default = f"Default: {each.default}." if each.default else ""
        lines += _comment("\n".join(filter(None, [each.description, default])), "  ")
        lines.append(f"  {_key(each.name)}{'' if each.is_required else '?'}: {text_of(each.shape)}")
    if shape.rest is not None:
        # The type of further keys has to hold for the known ones, too.
        lines.append("  [key: string]: any")
    return "\n".join([*lines, "}\n"])


def text_of(shape: Shape) -> str:
    """Return a shape as a TypeScript type."""
    match shape:
        case Plain(name):
            text = _PLAIN.get(name, name)
        case Literal(values):
            text = " | ".join(map(_json, values))
        case Array(item):
            inner = text_of(item)
            text = f"({inner})[]" if isinstance(item, Union | Literal) else f"{inner}[]"
        case Tuple(items, rest):
            text = f"[{', '.join([*map(text_of, items), *([] if rest is None else [f'...({text_of(rest)})[]'])])}]"
        case Map(value):
            text = f"{{ [key: string]: {text_of(value)} }}"
        case Union(members):
            text = " | ".join(map(text_of, members))
        case Ref(name):
            text = name
        case Object():
            raise AssertionError(f"{shape} has no name")
    return text


def _members(node: Node, indent: str) -> Iterator[str]:
    """Yield the lines of an interface or a type literal."""
    for segment, child in sorted(node.children.items()):
        if not child.children:
            assert child.signature is not None
            yield from _comment(child.signature.function.description, indent)
            yield f"{indent}{_key(segment)}{_call(child.signature)}"
            continue
        yield f"{indent}readonly {_key(segment)}: {{"
        if child.signature is not None:
            yield from _comment(child.signature.function.description, f"{indent}  ")
            yield f"{indent}  {_call(child.signature)}"
        yield from _members(child, f"{indent}  ")
        yield f"{indent}}}"


def _call(signature: Signature) -> str:
    optional = "?" if signature.is_optional or _needs_nothing(signature) else ""
    payload = f"payload{optional}: {text_of(signature.payload)}"
    result = "void" if signature.result == NULL else text_of(signature.result)
    return f"({payload}, options?: CallOptions): Promise<{result}>"


def _needs_nothing(signature: Signature) -> bool:
    return signature.arguments is not None and not any(each.is_required for each in signature.arguments.fields)


def _values(node: Node, indent: str) -> Iterator[str]:
    """Yield the lines of the object that answers the interface."""
    for segment, child in sorted(node.children.items()):
        key = f"[{_json(segment)}]" if segment == "__proto__" else _key(segment)
        if not child.children:
            yield f"{indent}{key}: {_made(child)},"
            continue
        opening, closing = ("{", "}") if child.signature is None else (f"both({_made(child)}, {{", "})")
        yield f"{indent}{key}: {opening}"
        yield from _values(child, f"{indent}  ")
        yield f"{indent}{closing},"


def _made(node: Node) -> str:
    assert node.signature is not None
    function = node.signature.function
    options = [] if function.namespace == DEFAULT_NAMESPACE else [f"namespace: {_json(function.namespace)}"]
    if function.request is not None and node.signature.arguments is None:
        options.append("nothing: null")
    given = f", {{ {', '.join(options)} }}" if options else ""
    return f"call({_json(function.id)}{given})"


def _key(name: str) -> str:
    return name if _NAME.fullmatch(name) else _json(name)


def _json(value: object) -> str:
    return json.dumps(value).replace("\u007f", "\\u007f")


def _free(name: str, taken: Iterable[str]) -> str:
    free, number = name, 2
    while free in taken:
        free, number = f"{name}{number}", number + 1
    return free


def _comment(text: str, indent: str) -> list[str]:
    lines = ["".join(char if char.isprintable() else " " for char in line) for line in text.strip().splitlines()]
    lines = [line.rstrip().replace("*/", "*\\/") for line in lines]
    if not lines:
        return []
    if len(lines) == 1:
        return [f"{indent}/** {lines[0]} */"]
    return [f"{indent}/**", *(f"{indent} * {line}".rstrip() for line in lines), f"{indent} */"]
