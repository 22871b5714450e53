"""What travels between two engines: frames of bytes, with pieces of messages in them. Pure.

A frame is one NATS message. Its head says of which link it is, which frame, and how many frames of the other direction
have arrived; then come the pieces. A message that fits is one piece; a longer one is cut, and its pieces are numbered.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from msgspec import Struct

# Bytes of a message in one frame: small enough that a small message waits for few bytes of a large one.
PIECE = 64 * 1024
_HEAD = struct.Struct(">BIQQ")
_PIECE_HEAD = struct.Struct(">IBI")
# Bytes of a frame beside those of its first piece.
OVERHEAD = _HEAD.size + _PIECE_HEAD.size


class Kind(IntEnum):
    """What a frame is for.

    A PROBE asks whether all frames up to its sequence have arrived; the answer is an ACK, or else a RESEND.
    """

    DATA = 1
    PROBE = 2
    ACK = 3
    RESEND = 4


class Piece(Struct, frozen=True, gc=False):
    """A part of a message. `number` is 0 for a message in one piece; `is_last` ends the message of this number."""

    number: int
    is_last: bool
    data: bytes


class Frame(Struct, frozen=True, gc=False):
    """`sequence` counts the DATA frames of one direction of a link from 1; `received` is the last one that arrived.

    A link that was given up starts anew in the next `generation`.
    """

    kind: Kind
    generation: int
    sequence: int
    received: int
    pieces: tuple[Piece, ...] = ()


class MalformedFrame(ValueError):
    """The bytes are no frame: another program writes to this engine's subject, or another version does."""


def encode_frame(frame: Frame) -> bytes:
    parts = [_HEAD.pack(frame.kind, frame.generation, frame.sequence, frame.received)]
    for piece in frame.pieces:
        parts += (_PIECE_HEAD.pack(piece.number, piece.is_last, len(piece.data)), piece.data)
    return b"".join(parts)


def decode_frame(data: bytes) -> Frame:
    """Return the frame. Raises `MalformedFrame` for anything that `encode_frame` does not write."""
    try:
        kind, generation, sequence, received = _HEAD.unpack_from(data)
        pieces = []
        at = _HEAD.size
        while at < len(data):
            number, is_last, size = _PIECE_HEAD.unpack_from(data, at)
            at += _PIECE_HEAD.size + size
            if at > len(data) or is_last > 1:
                raise MalformedFrame("a piece ends beyond its frame")
            pieces.append(Piece(number, bool(is_last), data[at - size : at]))
        return Frame(Kind(kind), generation, sequence, received, tuple(pieces))
    except (struct.error, ValueError) as error:
        raise MalformedFrame(f"no frame of an engine: {error}") from None
