"""How deep a JSON text is nested and how many values it holds, counted in its bytes without building any value.

The counts are right for well-formed texts only. The engine checks what comes in, the SDK what goes out. Public:
standard workers may import it.
"""

from __future__ import annotations

# Deeper payloads break recursive parsers; no honest message comes near.
MAX_DEPTH = 64
# A value built from more nodes costs hundreds of MB of Python objects.
MAX_NODES = 200_000
# What is split in one go: other threads run between two pieces.
PIECE = 256 * 1024

_SQUARE = bytes.maketrans(b"{}", b"[]")
_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b'[]{},"')
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def is_moderate(text: bytes, *, envelope: int = 0) -> bool:
    """Whether a text is certainly within the limits, of depth with `envelope` levels more.

    False decides nothing: a value has at most as many nodes as commas and openings, and itself.
    """
    if _is_sparse(text):
        return True
    shape = _shape(text)
    nodes = shape.count(b",") + shape.count(b"[") + shape.count(b"{")
    return nodes <= MAX_NODES and _depth(shape) <= MAX_DEPTH + envelope


def excess_of(text: bytes) -> str | None:
    """Return the limit that a value exceeds, as a phrase; None if it is within both."""
    shape = _shape(text)
    # A container with k children holds k-1 commas, and the root is one value more.
    nodes = shape.count(b",") + 1
    if nodes <= MAX_NODES:  # else a look at which containers are empty would take long, and change nothing
        values = _outside_strings(text).translate(None, b" \t\r\n")
        nodes += values.count(b"[") + values.count(b"{") - values.count(b"[]") - values.count(b"{}")
    if nodes > MAX_NODES:
        return f"more than {MAX_NODES} values"
    return f"more than {MAX_DEPTH} levels" if _depth(shape) > MAX_DEPTH else None


def _is_sparse(text: bytes) -> bool:
    """Whether so few brackets and commas stand in a text, strings included, that it is within the limits.

    A large text is often one long string. Where a character is rare, `find` is twenty times faster than `count`.
    """
    return (
        _has_at_most(text, b"[", MAX_DEPTH // 2)
        and _has_at_most(text, b"{", MAX_DEPTH // 2)
        and (len(text) <= MAX_NODES or _has_at_most(text, b",", 256))
    )


def _has_at_most(text: bytes, character: bytes, most: int) -> bool:
    place = -1
    for _ in range(most + 1):
        place = text.find(character, place + 1)
        if place < 0:
            return True
    return False


def _shape(text: bytes) -> bytes:
    """Return the brackets and commas of a JSON text that stand outside its strings.

    With all other characters deleted, a string is `""` unless it holds brackets or commas itself. Removing the `""`
    leaves as odd or even a number of quotes before everything as there was: what was inside a string still is.
    """
    if b"\\" in text:
        text = _without_escapes(text)
    shape = text.translate(None, _NOT_STRUCTURE).replace(b'""', b"")
    return _outside_strings(shape).translate(None, b"0") if b'"' in shape else shape


def _without_escapes(text: bytes) -> bytes:
    """Return the text with no quotes but those that open or close a string: backslashes stand in strings only."""
    return text.replace(b"\\\\", b"").replace(b'\\"', b"")


def _outside_strings(text: bytes) -> bytes:
    """Return the text with a `0` for each string."""
    text = _without_escapes(text)
    parts, is_inside = [], 0
    for start in range(0, len(text), PIECE):
        piece = text[start : start + PIECE].split(b'"')
        parts.append(b"0".join(piece[is_inside::2]))
        is_inside ^= (len(piece) - 1) & 1
        parts.append(b"0" * is_inside)
    return b"".join(parts)


def _depth(shape: bytes) -> int:
    """Nesting depth of JSON without strings, counted by peeling off the innermost pairs at C speed."""
    brackets = shape.translate(_SQUARE, _NOT_BRACKETS)
    depth = 0
    while brackets and depth <= MAX_DEPTH + 1:
        brackets = brackets.replace(b"[]", b"")
        depth += 1
    return depth
