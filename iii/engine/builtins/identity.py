"""What becomes of a peer that says who it is (`engine::workers::register`). Pure.

A worker's name is a lease: one live worker has it in a namespace, a second one is told so and must go. Called by the
engine's own functions; which peers are processes of ours is the supervisor's knowledge, not this module's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iii.engine.routing import error_bodies
from iii.engine.routing.events import PeerExpelled, WorkersChanged
from iii.engine.routing.peer import Peer
from iii.engine.routing.router import Router
from iii.errors import ErrorCode, InvocationError
from iii.protocol.codec import encode
from iii.protocol.messages import RegistrationRejected

# Longer names, and invisible characters in them, serve only to deceive whoever reads a list.
MAX_NAME = 280


def introduce(router: Router, peer: Peer, said: Mapping[str, Any]) -> bool:
    """Give an unsupervised peer its name and namespace; False if the name is taken, and the peer told to go.

    Raises `InvocationError` (`INVALID_NAMESPACE`) for a blank namespace.
    """
    namespace = said.get("namespace")
    if isinstance(namespace, str) and not namespace.strip():
        body = error_bodies.blank_namespace("namespace")
        raise InvocationError(ErrorCode.INVALID_NAMESPACE, body.message)
    if peer.owner.is_supervised:
        return True
    name = clean(said.get("name"))
    holder = router.peer_table.introduce(peer, name, namespace if isinstance(namespace, str) else None)
    if holder is not None:
        _turn_away(
            router,
            peer,
            RegistrationRejected(ErrorCode.WORKER_NAMESPACE_CONFLICT, holder.namespace, holder.id, worker_name=name),
        )
    return holder is None


def _turn_away(router: Router, peer: Peer, rejection: RegistrationRejected) -> None:
    router.calls.send(peer, encode(rejection))
    peer.staged.clear()
    peer.is_retired = True  # nothing it still registers takes effect
    router.events.append(PeerExpelled(peer))


def note(router: Router, peer: Peer, said: Mapping[str, Any]) -> None:
    """Keep what the peer told about itself, and tell those who want to know."""
    peer.info = dict(said)
    if peer.kind == "client":
        peer.kind = "worker"
        router.events.append(WorkersChanged("worker_connected", peer.id))
    if peer.pid is None and type(said.get("pid")) is int:
        peer.pid = said["pid"]
    router.events.append(WorkersChanged("worker_metadata_updated", peer.id))


def clean(name: Any) -> str:
    """Return a worker's name as it may be shown: no control or bidi characters, at most 280."""
    text = name if isinstance(name, str) else ""
    return "".join(character for character in text if character.isprintable())[:MAX_NAME]
