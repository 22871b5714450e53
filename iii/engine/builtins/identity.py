"""The names and metadata of peers (`engine::workers::register`). Pure.

In each namespace one live worker has a name; a second worker that asks for it is refused and disconnected. Which peers
are processes of supervised workers is not decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iii.engine.routing import error_bodies
from iii.engine.routing.events import PeerExpelled, WorkersChanged
from iii.engine.routing.message_forms import MAX_NAME
from iii.engine.routing.peer import Peer
from iii.engine.routing.router import Router
from iii.errors import ErrorCode, InvocationError
from iii.protocol.codec import encode
from iii.protocol.messages import FEATURES, RegistrationRejected

# What lists show of the metadata; no more is kept.
_INFO = ("description", "version", "runtime", "os", "isolation")


def introduce(router: Router, peer: Peer, fields: Mapping[str, Any]) -> bool:
    """Give an unsupervised peer the name and namespace it asks for; if the name is taken, reject it and return False.

    Raises `InvocationError` (`INVALID_NAMESPACE`) for a blank namespace.
    """
    namespace = fields.get("namespace")
    if isinstance(namespace, str) and not namespace.strip():
        raise InvocationError(ErrorCode.INVALID_NAMESPACE, error_bodies.invalid_namespace("namespace").message)
    if isinstance(namespace, str) and (len(namespace) > MAX_NAME or not namespace.isprintable()):
        text = f"namespace has over {MAX_NAME} characters, or control characters: {namespace[:64]!r}"
        raise InvocationError(ErrorCode.INVALID_NAMESPACE, text)
    if peer.owner.is_supervised:
        return True
    declared = fields.get("name")
    # Longer names, and control or bidi characters in them, serve only to deceive the reader of a list.
    name = "".join(filter(str.isprintable, declared))[:280] if isinstance(declared, str) else ""
    holder = router.peer_table.introduce(peer, name, namespace if isinstance(namespace, str) else None)
    if holder is None:
        return True
    code = ErrorCode.WORKER_NAMESPACE_CONFLICT
    router.calls.send(peer, encode(RegistrationRejected(code, holder.namespace, holder.id, worker_name=name)))
    peer.staged.clear()
    peer.is_retired = True  # nothing it still registers takes effect
    router.events.append(PeerExpelled(peer))
    return False


def features_in(fields: Mapping[str, Any]) -> frozenset[str]:
    """Return the features of the protocol that a worker says it knows, of those that the engine knows."""
    declared = fields.get("features")
    return (
        frozenset(FEATURES) & {each for each in declared if isinstance(each, str)}
        if isinstance(declared, list)
        else frozenset()
    )


def note_metadata(router: Router, peer: Peer, fields: Mapping[str, Any]) -> None:
    """Keep the metadata that the peer sent, and report that the list of workers changed."""
    peer.info = {key: fields[key][:MAX_NAME] for key in _INFO if isinstance(fields.get(key), str)}
    if peer.kind == "client":
        peer.kind = "worker"
        router.events.append(WorkersChanged("worker_connected", peer.id))
    if peer.pid is None and peer.rights is None and type(fields.get("pid")) is int:
        peer.pid = fields["pid"]
    router.events.append(WorkersChanged("worker_metadata_updated", peer.id))
