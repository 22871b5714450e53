"""What an engine tells another one of its functions: differences to what it has told before. Pure.

Announced are the functions of the workers that run here, and the engine's own in a namespace of its name. Functions of
sessions are not: who may register a name on one engine's listener must not take calls of other engines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
from msgspec import Raw, Struct

from iii.engine.routing.registry import Function
from iii.engine.routing.router import Router
from iii.protocol import messages as m
from iii.protocol.messages import ABSENT, DEFAULT_NAMESPACE

# Bytes of one message with changes, beside the last declaration in it: what registers in a few milliseconds.
MAX_CHANGES = 64 * 1024

Key = tuple[str, str]  # namespace and id


class OfferedFunction(Struct, omit_defaults=True, gc=False):
    """A function that the other engine may call."""

    id: str
    namespace: str = DEFAULT_NAMESPACE
    worker: str = ""
    description: str | None = None
    request_format: Raw = ABSENT
    response_format: Raw = ABSENT
    metadata: Raw = ABSENT

    @property
    def key(self) -> Key:
        return self.namespace, self.id

    def declaration(self) -> m.RegisterFunction:
        """Return the registration that this engine makes in the other one's name."""
        return m.RegisterFunction(
            self.id, self.description, self.request_format, self.response_format, metadata=self.metadata
        )


class Changes(Struct, omit_defaults=True):
    """What is new or different, and what is gone."""

    functions: list[OfferedFunction] = []
    removed: list[Key] = []


Announced = dict[Key, tuple[OfferedFunction, bytes]]

encode_changes: Callable[[Changes], bytes] = msgspec.json.Encoder().encode
decode_changes: Callable[[bytes], Changes] = msgspec.json.Decoder(Changes).decode


class Announcements:
    """The functions of this engine as others are told of them, made anew where a declaration has changed."""

    def __init__(self, router: Router, engine_namespace: str) -> None:
        self._router = router
        self._engine_namespace = engine_namespace
        self._made: dict[Function, tuple[m.RegisterFunction, OfferedFunction, bytes]] = {}

    def current(self) -> Announced:
        made = {}
        for function in self._router.registry:
            owner = function.owner
            if owner.is_remote or owner.rights is not None:
                continue
            known = self._made.get(function)
            if known is None or known[0] is not function.declaration:
                offered = self._offered(function)
                known = function.declaration, offered, encode_changes(Changes([offered]))
            made[function] = known
        self._made = made
        return {offered.key: (offered, data) for _, offered, data in made.values()}

    def _offered(self, function: Function) -> OfferedFunction:
        declaration = function.declaration
        is_engines = any(provider.kind == "engine" for provider in function.providers)
        return OfferedFunction(
            function.id,
            self._engine_namespace if is_engines else function.namespace,
            function.owner.name,
            declaration.description,
            declaration.request_format,
            declaration.response_format,
            declaration.metadata,
        )


class Offers:
    """What one engine has been told."""

    def __init__(self) -> None:
        self._told: dict[Key, bytes] = {}

    def forget(self, namespace: str, id: str) -> None:
        """The engine has learned in another way that the function is gone."""
        self._told.pop((namespace, id), None)

    def changes(self, announced: Announced) -> Iterator[Changes]:
        """Yield what the engine has to be told, in messages of a bounded size."""
        changes, size = Changes([], [key for key in self._told if key not in announced]), 0
        for key, (offered, data) in announced.items():
            if self._told.get(key) != data:
                changes.functions.append(offered)
                size += len(data)
            if size > MAX_CHANGES:
                yield changes
                changes, size = Changes([], []), 0
        self._told = {key: data for key, (_, data) in announced.items()}
        if changes.functions or changes.removed:
            yield changes
