"""What one message carries, judged before a value is written: what cannot be answered must have no effect. Pure.

A write answers with the value before and after it, and its event carries both. The limits are those of the protocol
(docs/protocol.md).
"""

from __future__ import annotations

from iii import InvocationError

MAX_BYTES = 16 * 1024 * 1024
# Room for what is in a message beside the two values: names, ids, a trace, the metadata of a trigger.
ENVELOPE_BYTES = 64 * 1024
MAX_NODES = 200_000
MAX_DEPTH = 64
# Levels and values around the two in an event.
ENVELOPE_DEPTH, ENVELOPE_NODES = 2, 32

_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_SQUARE = bytes.maketrans(b"{}", b"[]")


def check_change(what: str, old: bytes | None, new: bytes | None) -> None:
    """Refuse a write whose answer or event would not fit. InvocationError `payload_too_large`; nothing was written.

    `old` and `new` are the JSON of the value before and after, None for none; `what` names it for the user. A deletion
    always passes.
    """
    if new is None:
        return
    size = len(old or b"") + len(new)
    if size <= MAX_DEPTH:
        return
    if size > MAX_BYTES - ENVELOPE_BYTES:
        limit = MAX_BYTES - ENVELOPE_BYTES
        raise _too_large(what, f"the old and the new value have {size} bytes together, over the {limit} of a message")
    if size > MAX_NODES - ENVELOPE_NODES and _nodes(old or b"") + _nodes(new) > MAX_NODES - ENVELOPE_NODES:
        # Those in strings were counted, too.
        nodes = _nodes(_outside_strings(old or b"")) + _nodes(_outside_strings(new))
        if nodes > MAX_NODES - ENVELOPE_NODES:
            limit = MAX_NODES - ENVELOPE_NODES
            raise _too_large(what, f"the old and the new value hold {nodes} values together, over the {limit}")
    if new.count(b"[") + new.count(b"{") > MAX_DEPTH - ENVELOPE_DEPTH and _is_deep(new):
        raise _too_large(what, f"the new value is nested deeper than the {MAX_DEPTH - ENVELOPE_DEPTH} levels")


def _too_large(what: str, why: str) -> InvocationError:
    text = f"{what} was not written: {why}; keep large data in several keys, or delete the old value first"
    return InvocationError("payload_too_large", text)


def _nodes(text: bytes) -> int:
    """Return how many values a JSON text holds, at most: an empty container counts as two."""
    return text.count(b",") + text.count(b"[") + text.count(b"{") + 1


def _outside_strings(text: bytes) -> bytes:
    # Backslashes stand in strings only: without escaped backslashes and quotes, every quote opens or closes a string.
    return b"".join(text.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])


def _is_deep(text: bytes) -> bool:
    brackets = _outside_strings(text).translate(_SQUARE, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH - ENVELOPE_DEPTH):
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)
