"""Which peer provides which function and which action: tables and the decisions over them. Pure.

A function belongs to one owner. Its `providers` are the serving peers of that owner that registered it: several
only for instances of one supervised worker, or for the moment in which a new generation takes over. The registration of
the same id by another owner's peer is refused; the peer is kept as a standby, and the standbys are promoted in order
when the owner leaves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec import Raw

from iii.engine.routing.peer import Owner, Peer
from iii.errors import ErrorCode, InvocationError
from iii.protocol.codec import decode_value
from iii.protocol.messages import ABSENT, DEFAULT_NAMESPACE, RegisterAction, RegisterFunction

# Returns the details of a refusal ({"path", "expected", "got", "message"}), or None when the payload fits.
Validator = Callable[[Raw], "dict[str, object] | None"]

# Ids are shown in terminals, URLs and logs: printable, no spaces, bounded.
MAX_ID = 256
# Names of the project that are remembered when the peers that had them have left. They lie scattered among what those
# peers leave free, and each may keep a page of it: no more than workers started by hand have.
MAX_REMEMBERED = 1_000
MAX_FUNCTIONS_PER_PEER = 10_000
# The owner of called functions that no peer has registered.
NO_OWNER = Owner("", DEFAULT_NAMESPACE, is_supervised=False)


@dataclass(slots=True, eq=False, repr=False)
class Function:
    """A registered function: its declaration, its owner, and the peers that can run it now."""

    id: str
    namespace: str
    owner: Owner
    providers: list[Peer] = field(default_factory=list)
    direct_callee: Peer | None = None  # the only provider, if it takes every call as it comes
    standbys: list[tuple[Peer, RegisterFunction]] = field(default_factory=list)
    declaration: RegisterFunction = field(init=False)
    metadata: dict[str, object] = field(default_factory=dict)
    is_idempotent: bool = False
    validator: Validator | None = None
    result_validator: Validator | None = None  # while results are checked
    observers: tuple[
        Any, ...
    ] = ()  # those that the engine shows its calls to: of Observer, whose module imports this one
    waiting: int = 0  # how many of the owner's waiting calls are for it
    answered: int = 0  # calls whose callers got an outcome
    failed: int = 0  # calls whose callers got an error

    def __post_init__(self) -> None:
        self.declaration = RegisterFunction(self.id)

    def add_provider(self, peer: Peer) -> None:
        """The peer can run the function from now on."""
        if peer not in self.providers:
            self.providers.append(peer)
            peer.functions[self] = None
            self._find_direct_callee()

    def add_standby(self, peer: Peer, declaration: RegisterFunction) -> None:
        """The peer takes over when the owner has left, with its latest declaration."""
        self.standbys = [standby for standby in self.standbys if standby[0] is not peer]
        self.standbys.append((peer, declaration))
        peer.functions[self] = None

    def remove_provider(self, peer: Peer) -> None:
        """The peer neither runs the function any more nor stands by for it."""
        self.providers = [provider for provider in self.providers if provider is not peer]
        self.standbys = [standby for standby in self.standbys if standby[0] is not peer]
        peer.functions.pop(self, None)
        self._find_direct_callee()

    def _find_direct_callee(self) -> None:
        is_direct = len(self.providers) == 1 and self.providers[0].concurrency is None and self.validator is None
        self.direct_callee = self.providers[0] if is_direct else None

    def declare(self, declaration: RegisterFunction, validator: Validator | None) -> None:
        """Take description, schemas and metadata from the latest registration."""
        self.declaration = declaration
        metadata = None if declaration.metadata is ABSENT else decode_value(declaration.metadata)
        self.metadata = metadata if isinstance(metadata, dict) else {}
        self.is_idempotent = self.metadata.get("idempotent") is True
        self.validator = validator
        self.result_validator = None
        self._find_direct_callee()

    @property
    def is_internal(self) -> bool:
        """Hidden from lists unless asked for."""
        hidden = self.id.startswith("engine::") and not self.id.startswith("engine::queue::")
        return hidden or self.metadata.get("internal") is True


class Action:
    """A trigger action: the declaration's `function_id` carries it out. `providers` are peers of its owner."""

    def __init__(self, declaration: RegisterAction, peer: Peer) -> None:
        self.declaration = declaration
        self.owner = peer.owner
        self.peer = peer  # the last one that declared it
        self.providers = [peer]

    @property
    def is_vacant(self) -> bool:
        """Whether no peer provides it, and its owner does not keep it."""
        return not (self.providers or self.owner.keeps_vacancies)


class RememberedNames:
    """The names (namespace and id) that peers of the project had when they left, the latest of them.

    A worker that was started by hand comes back under the same names: until then, no session gets them.
    """

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], None] = {}

    def __contains__(self, name: tuple[str, str]) -> bool:
        return name in self._names

    def add(self, namespace: str, id: str) -> None:
        self._names.pop((namespace, id), None)
        self._names[namespace, id] = None
        if len(self._names) > MAX_REMEMBERED:
            del self._names[next(iter(self._names))]


class Registry:
    """The tables of functions (by namespace, then id) and actions (by id)."""

    def __init__(self) -> None:
        self.namespaces: dict[str, dict[str, Function]] = {DEFAULT_NAMESPACE: {}}
        self.default = self.namespaces[DEFAULT_NAMESPACE]
        self.actions: dict[str, Action] = {}
        self.remembered = RememberedNames()
        self.past_answered = self.past_failed = 0  # calls of functions that are gone

    def __iter__(self) -> Iterator[Function]:
        for functions in self.namespaces.values():
            yield from functions.values()

    def find(self, namespace: str, function_id: str) -> Function | None:
        """Return the function of that id in exactly that namespace."""
        return self.namespaces.get(namespace, {}).get(function_id)

    def namespaces_with(self, function_id: str) -> list[str]:
        """Return the namespaces that have this id, for error messages."""
        return sorted(name for name, functions in self.namespaces.items() if function_id in functions)

    def register(self, peer: Peer, declaration: RegisterFunction, validator: Validator | None) -> Function | None:
        """Register a function of a serving peer. Return None when the id belongs to another owner.

        Raises `InvocationError` when the id breaks the grammar or the peer has too many functions.
        """
        check_id(declaration.id)
        functions = self.namespaces.setdefault(peer.namespace, {})
        function = functions.get(declaration.id)
        if function is None:
            if len(peer.functions) >= MAX_FUNCTIONS_PER_PEER:
                text = f"{peer.name} has {MAX_FUNCTIONS_PER_PEER} functions already"
                raise InvocationError(ErrorCode.LIMIT_EXCEEDED, text)
            function = functions[declaration.id] = Function(declaration.id, peer.namespace, peer.owner)
        elif function.owner is not peer.owner:
            if function.owner.is_expected or function.providers:
                function.add_standby(peer, declaration)
                return None
            function.owner = peer.owner
        function.add_provider(peer)
        function.declare(declaration, validator)
        return function

    def provide_action(self, declaration: RegisterAction, peer: Peer) -> None:
        """Add a peer's action: beside the other processes of its worker, in place of any other worker's.

        Raises `InvocationError` when the id breaks the grammar.
        """
        check_id(declaration.id)
        former = self.actions.get(declaration.id)
        action = self.actions[declaration.id] = Action(declaration, peer)
        if former is not None and former.owner is peer.owner:
            action.providers += [provider for provider in former.providers if provider is not peer]

    def withdraw_action(self, id: str, peer: Peer) -> None:
        """The peer no longer provides the action."""
        action = self.actions.get(id)
        if action is not None:
            action.providers = [provider for provider in action.providers if provider is not peer]
            if action.is_vacant:
                del self.actions[id]

    def drop(self, function: Function) -> None:
        """Forget a function; the counts of its calls stay in the totals."""
        functions = self.namespaces.get(function.namespace, {})
        if functions.get(function.id) is function:
            del functions[function.id]
            self.past_answered += function.answered
            self.past_failed += function.failed


_FORBIDDEN_ID = re.compile(r"\s|\.\.")


def check_id(id: str) -> None:
    """Raise `InvocationError` (`invalid_message`) unless `id` is printable, without spaces, 1 to 256 characters."""
    if not 0 < len(id) <= MAX_ID:
        raise InvocationError(ErrorCode.INVALID_MESSAGE, f"an id has 1 to {MAX_ID} characters, this one {len(id)}")
    if not id.isprintable() or _FORBIDDEN_ID.search(id):
        text = f"an id holds no spaces, control or bidi characters and no '..': {id!r}"
        raise InvocationError(ErrorCode.INVALID_MESSAGE, text)
