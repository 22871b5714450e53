"""One link between two engines: messages arrive whole, once and in order, or the link is given up. Pure.

Theory of operation. NATS delivers at most once, and a node that dies takes with it what it had not passed on. So DATA
frames are numbered and kept until the other engine has said that they arrived; every frame says so. The receiver takes
frames in sequence only; at a gap it asks for a RESEND, and everything that is kept is sent again. A PROBE finds out
whether the last frames have arrived.

At most WINDOW bytes are on the way at a time: that is the credit that a slow engine gives. What waits, waits in lanes,
which take turns by the piece: a small message never waits for all of a large one in another lane, and within a lane the
order is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import NamedTuple

from iii.engine.cluster.frames import OVERHEAD, PIECE, Frame, Kind, MalformedFrame, Piece, encode_frame
from iii.protocol.lines import MAX_LINE

# Bytes on the way in one direction. On a fast network 64 KiB take half a millisecond to be acknowledged.
WINDOW = 1024 * 1024
# Messages of which the other engine may hold a part; each is as long as a line at most.
MAX_CUT = 4
MAX_MESSAGE = MAX_LINE + 4096


class Lane:
    """Messages that must arrive in order. `at` is how much of the first one has been taken."""

    __slots__ = ("at", "messages", "number")

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()
        self.at = 0
        self.number = 0  # of the first message, while it is cut


class _Kept(NamedTuple):
    frame: Frame
    size: int
    ended: list[bytes]  # the messages of which the last piece is in this frame


class Link:
    """One end of a link. `put` messages in, send what `frames` returns, give `receive` what arrives."""

    def __init__(self, generation: int, *, max_frame: int = PIECE + OVERHEAD, window: int = WINDOW) -> None:
        self.generation = generation
        self._window = window
        self.limit(max_frame)
        self._lanes: dict[Hashable, Lane] = {}
        self._cut = 0  # lanes of which the first message is cut
        self._numbers = 0
        self.waiting_bytes = 0
        self._kept: deque[_Kept] = deque()  # the frames that are not acknowledged yet
        self._kept_bytes = 0
        self._unsent: deque[Frame] = deque()  # of those that are kept: to be sent again
        self.sent = 0  # the last sequence
        self._received = 0
        self._received_bytes = 0  # since the other engine was told
        self._reply: Kind | None = None
        self._has_asked = False  # for a RESEND at this gap
        self._parts: dict[int, bytearray] = {}
        self.resent = 0

    def __repr__(self) -> str:
        return f"<Link generation {self.generation}, {len(self._kept)} kept, {self.waiting_bytes} bytes wait>"

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait, or are on the way."""
        return self.waiting_bytes + self._kept_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes that this end holds: those, and parts of messages that are not whole yet."""
        return self.unsent_bytes + sum(map(len, self._parts.values()))

    @property
    def is_open(self) -> bool:
        """Whether the other engine has not said of everything that it arrived."""
        return bool(self._kept or self.waiting_bytes)

    def limit(self, max_frame: int) -> None:
        """Write no frame longer than this from now on."""
        self._room = max_frame - OVERHEAD

    def put(self, lane: Hashable, message: bytes) -> None:
        """Send a message, after those of the same lane that wait."""
        if (waiting := self._lanes.get(lane)) is None:
            waiting = self._lanes[lane] = Lane()
        waiting.messages.append(message)
        self.waiting_bytes += len(message)

    def frames(self) -> list[tuple[int, bytes]]:
        """Return what may be sent now, as (sequence, bytes): the sequence is 0 for a frame without messages."""
        written: list[tuple[int, bytes]] = []
        while self._unsent:
            frame = self._unsent.popleft()
            written.append((frame.sequence, self._encoded(frame.kind, frame.sequence, frame.pieces)))
        while self._lanes and self._kept_bytes < self._window:
            pieces, ended = self._take_pieces()
            self.sent += 1
            frame = Frame(Kind.DATA, self.generation, self.sent, 0, pieces)
            data = self._encoded(frame.kind, frame.sequence, pieces)
            self._kept.append(_Kept(frame, len(data), ended))
            self._kept_bytes += len(data)
            written.append((self.sent, data))
        if self._reply is not None and not (written and self._reply is Kind.ACK):
            written.append((0, self._encoded(self._reply, 0)))
        self._reply = None
        return written

    def ask_again(self) -> None:
        """Ask for what the other engine has sent before this end was made."""
        self._reply = Kind.RESEND

    def probe(self) -> bytes:
        """Return a frame that asks whether everything that was sent has arrived."""
        return self._encoded(Kind.PROBE, self.sent)

    def receive(self, frame: Frame) -> list[bytes]:
        """Take a frame of this generation; return the messages that are whole now. Raises `MalformedFrame`."""
        self._forget_received(frame.received)
        if frame.kind is Kind.DATA:
            return self._receive_data(frame)
        if frame.kind is Kind.PROBE:
            self._reply = Kind.ACK if self._received >= frame.sequence else Kind.RESEND
        elif frame.kind is Kind.RESEND:
            self.resend()
        return []

    def resend(self) -> None:
        """Send everything again that has not been acknowledged."""
        self._unsent = deque(kept.frame for kept in self._kept)
        self.resent += len(self._unsent)

    def messages_from(self, sequence: int) -> list[bytes]:
        """Return the messages that end in this frame or a later one, and those that wait: what such a frame lost."""
        messages = [message for kept in self._kept if kept.frame.sequence >= sequence for message in kept.ended]
        for lane in self._lanes.values():
            messages += lane.messages
        return messages

    def _encoded(self, kind: Kind, sequence: int, pieces: tuple[Piece, ...] = ()) -> bytes:
        self._received_bytes = 0
        return encode_frame(Frame(kind, self.generation, sequence, self._received, pieces))

    def _forget_received(self, received: int) -> None:
        if received > self.sent:
            raise MalformedFrame(f"frame {received} is said to have arrived, and {self.sent} were sent")
        while self._kept and self._kept[0].frame.sequence <= received:
            kept = self._kept.popleft()
            self._kept_bytes -= kept.size
            if self._unsent and self._unsent[0] is kept.frame:
                self._unsent.popleft()

    def _receive_data(self, frame: Frame) -> list[bytes]:
        if frame.sequence != self._received + 1:
            is_old = frame.sequence <= self._received
            if is_old or not self._has_asked:
                self._reply = Kind.ACK if is_old else Kind.RESEND
            self._has_asked |= not is_old
            return []
        self._received, self._has_asked = frame.sequence, False
        messages = []
        for piece in frame.pieces:
            self._received_bytes += len(piece.data) + OVERHEAD
            if (message := self._joined(piece)) is not None:
                messages.append(message)
        if self._received_bytes >= self._window // 4 and self._reply is None:
            # Before the window is used up: the sender has credit again in time.
            self._reply = Kind.ACK
        return messages

    def _joined(self, piece: Piece) -> bytes | None:
        if piece.number == 0:
            return piece.data
        part = self._parts.setdefault(piece.number, bytearray())
        part += piece.data
        if len(self._parts) > MAX_CUT or len(part) > MAX_MESSAGE:
            raise MalformedFrame("more pieces than an engine sends")
        return bytes(self._parts.pop(piece.number)) if piece.is_last else None

    def _take_pieces(self) -> tuple[tuple[Piece, ...], list[bytes]]:
        """Fill a frame with pieces of the lanes that wait, in turn; and return the messages that end in it."""
        room, pieces, ended = self._room, [], []
        for key in list(self._lanes):
            lane = self._lanes.pop(key)
            while lane.messages and room > 0:
                message = lane.messages[0]
                piece = self._next_piece(lane, room)
                if piece is None:
                    break
                pieces.append(piece)
                room -= len(piece.data) + OVERHEAD
                if not piece.is_last:
                    break
                ended.append(message)
            if lane.messages:
                self._lanes[key] = lane  # at the end: the others come first
            if room <= 0:
                break
        return tuple(pieces), ended

    def _next_piece(self, lane: Lane, room: int) -> Piece | None:
        """Take a piece of the lane's first message; None where it must not be cut, and does not fit."""
        message = lane.messages[0]
        if not lane.at and len(message) > room:
            # A frame is filled with whole messages; only what fits no frame is cut, and few messages at a time.
            if len(message) <= self._room or self._cut >= MAX_CUT:
                return None
            self._cut += 1
            self._numbers = lane.number = self._numbers % 0xFFFFFFFF + 1
        data = message[lane.at : lane.at + room] if lane.at or len(message) > room else message
        lane.at += len(data)
        self.waiting_bytes -= len(data)
        number, is_last = lane.number, lane.at >= len(message)
        if is_last:
            lane.messages.popleft()
            self._cut -= bool(number)
            lane.at = lane.number = 0
        return Piece(number, is_last, data)
