"""What the router tells the composition root, besides the lines it puts into outboxes. Frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from msgspec import Raw

    from iii.engine.peer import Peer


@dataclass(frozen=True, slots=True)
class PeerReady:
    """The peer's registrations are complete; `files` are the project files it has imported."""

    peer: Peer
    files: list[str]


@dataclass(frozen=True, slots=True)
class PeerDrained:
    """A retired peer executes nothing any more."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class PeerExpelled:
    """Close the peer's transport: its worker came back on another connection, or its name is taken.

    With `why` it is the peer's own fault: a supervised worker is replaced for it.
    """

    peer: Peer
    why: str = ""


@dataclass(frozen=True, slots=True)
class FunctionsChanged:
    """The set of registered functions changed."""


@dataclass(frozen=True, slots=True)
class HttpFunctionRegistered:
    """A peer registered a function that lives behind a URL: whoever will call it has to agree."""

    peer: Peer
    function_id: str
    invocation: Raw


@dataclass(frozen=True, slots=True)
class WorkersChanged:
    """A worker connected, left, or told more about itself."""

    event: Literal["worker_connected", "worker_disconnected", "worker_metadata_updated"]
    worker_id: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something went wrong that nobody waits for; shown in the log, counted under `counter`."""

    peer_name: str
    text: str
    counter: str


Event = PeerReady | PeerDrained | PeerExpelled | FunctionsChanged | HttpFunctionRegistered | WorkersChanged | Notice
