"""What the router reports to the engine, besides the lines it puts into outboxes. Frozen values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msgspec import Raw

    from iii.engine.routing.peer import Peer
    from iii.protocol.messages import ErrorBody


class PeerReady(Struct, frozen=True):
    """The peer's registrations are complete; with `has_failed` its start has, and it will end.

    `files` are those that it has imported or looked for in vain, `digests` what those held that it has compiled; None
    stands for one that was not there.
    """

    peer: Peer
    files: tuple[str, ...]
    digests: Mapping[str, str | None]
    has_failed: bool = False


class PeerDrained(Struct, frozen=True):
    """A retired peer has finished all its calls."""

    peer: Peer


class PeerExpelled(Struct, frozen=True):
    """The peer's transport must be closed: its worker came back on another connection, or its name is taken.

    `why`, if not empty, says what the peer itself did wrong: the process of a supervised worker is replaced for it.
    """

    peer: Peer
    why: str = ""


class FunctionsChanged(Struct, frozen=True):
    """The set of registered functions changed."""


class HttpFunctionRegistered(Struct, frozen=True):
    """A peer registered a function that lives behind a URL: the worker that makes the requests has to accept it."""

    peer: Peer
    function_id: str
    invocation: Raw


class WorkersChanged(Struct, frozen=True):
    """A worker connected, left, or sent its metadata."""

    event: Literal["worker_connected", "worker_disconnected", "worker_metadata_updated"]
    worker_id: str


class CallFailed(Struct, frozen=True):
    """A call failed that no caller waits for, or whose caller may have made it for an event.

    `origin` made the call, `callee` ran it (None: no peer did), `line` is the call's message, `error` as it was sent.
    """

    function_id: str
    namespace: str
    origin: Peer
    callee: Peer | None
    line: bytes
    error: Raw | ErrorBody
    is_void: bool


class Notice(Struct, frozen=True):
    """Something went wrong and no caller waits for an error: shown in the log, counted under `counter`."""

    peer_name: str
    text: str
    counter: str


Event = (
    PeerReady
    | PeerDrained
    | PeerExpelled
    | FunctionsChanged
    | HttpFunctionRegistered
    | WorkersChanged
    | CallFailed
    | Notice
)
