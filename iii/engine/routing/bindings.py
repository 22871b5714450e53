"""Trigger types and the bindings of functions to them: tables and the decisions over them. Pure.

Every change returns the messages that must go out, as `(peer, message)` pairs. A binding whose trigger type has no
provider is parked; it is sent, with the same id and in the order of creation, as soon as a provider appears. A binding
that its provider refused is kept too: another one holds what it asks for, so it is offered again when one goes.

Bindings of sessions come after those of the project: they are offered last, and give way when the provider refuses one
of the project's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

from msgspec import Raw
from msgspec.structs import replace

from iii.engine.routing.peer import Owner, Peer, Rights
from iii.engine.routing.registry import RememberedNames
from iii.errors import ErrorCode
from iii.protocol.codec import encode_error
from iii.protocol.messages import (
    ABSENT,
    DEFAULT_NAMESPACE,
    ErrorBody,
    Message,
    RegisterTrigger,
    RegisterTriggerType,
    TriggerRegistrationResult,
    UnregisterTrigger,
    is_empty,
    or_null,
)

Outgoing = list[tuple[Peer, Message]]
Key = TypeVar("Key", bound=Hashable)

# Refused bindings of one session that are offered again: each costs its provider a message whenever another one goes.
MAX_REFUSED_PER_SESSION = 16


class TriggerType:
    """A kind of event, and the peer that implements it.

    `standbys` are the other processes of the same worker that provide it too, the newest last. When the provider goes,
    the newest standby takes over.
    """

    def __init__(self, declaration: RegisterTriggerType, namespace: str, provider: Peer) -> None:
        self.id = declaration.id
        self.namespace = namespace
        self.provider = provider
        self.declaration = declaration
        self.standbys: list[TriggerType] = []
        self.removals = 0  # bindings that the provider has let go


class Binding:
    """One event -> function binding.

    `binders` are the peers that registered it, each with its own id for the binding: the instances of one worker share
    a binding, and a new generation takes over the old one's. A durable binding (`engine::register_trigger`) has no
    binders, and stays when the peer that asked for it leaves. `rights` are those of the session that made it, None for
    the project's own. `refusal` is the provider's reason not to take it.
    """

    def __init__(self, message: RegisterTrigger, binder: Peer | None, *, rights: Rights | None = None) -> None:
        self.id = message.id
        self.trigger_type = message.trigger_type
        self.function_id = message.function_id
        self.config = or_null(message.config)
        self.metadata = message.metadata
        self.namespace = message.namespace or DEFAULT_NAMESPACE
        self.strict_namespace = message.trigger_namespace
        self.home = binder.namespace if binder else DEFAULT_NAMESPACE
        self.binders: dict[Peer, str] = {binder: message.id} if binder else {}
        self.owner: Owner | None = binder.owner if binder else None
        self.rights = binder.rights if binder else rights
        self.provider: Peer | None = None
        self.refusal = ABSENT
        self.is_offered = False  # its provider has been asked, and has not answered
        self.offered_after = 0  # `removals` of its type when its provider was asked
        self.has_asked_for_way = False  # sessions' bindings have given way to it

    @property
    def is_durable(self) -> bool:
        """Whether no peer owns it: it stays until it is unregistered."""
        return not self.binders

    @property
    def likeness(self) -> int:
        """A number that is the same for all bindings that are the same but for their ids."""
        config, metadata = bytes(self.config), bytes(self.metadata)
        names = (self.trigger_type, self.function_id, self.namespace, self.strict_namespace)
        return hash((id(self.owner), *names, config, metadata))

    def is_same_as(self, other: Binding) -> bool:
        """Whether both bind the same function to the same event in the same way."""
        return replace(other.request(), id=self.id) == self.request()

    @property
    def is_refused(self) -> bool:
        """Whether its provider did not take it."""
        return not is_empty(self.refusal)

    def declaration(self) -> RegisterTrigger:
        """Return the message that makes this binding, as its binder sent it."""
        return RegisterTrigger(
            id=self.id,
            trigger_type=self.trigger_type,
            function_id=self.function_id,
            config=self.config,
            metadata=self.metadata,
            namespace=None if self.namespace == DEFAULT_NAMESPACE else self.namespace,
            trigger_namespace=self.strict_namespace,
        )

    def request(self) -> RegisterTrigger:
        """Return the message that registers this binding with the provider."""
        declaration = self.declaration()
        return declaration if self.rights is None else self.rights.called_by(declaration)

    def request_for(self, provider: Peer) -> RegisterTrigger:
        """Return `request` for this provider: a session that provides a type gets nobody's metadata but its own."""
        is_its_own = provider.rights is None or self.owner is provider.owner
        return self.request() if is_its_own else replace(self.request(), metadata=ABSENT)

    def told(self, error: Raw) -> Outgoing:
        """Return the messages that tell its binders this error, each with the id it gave to the binding."""
        return [
            (binder, TriggerRegistrationResult(id, self.trigger_type, self.function_id, error))
            for binder, id in self.binders.items()
        ]

    def may_go_to(self, provider: Peer) -> bool:
        """Whether a provider may hear of it: a session hears of no function that it may not call."""
        rights = provider.rights
        return rights is None or self.owner is provider.owner or rights.may_invoke(self.namespace, self.function_id)


class Bindings:
    """The tables of trigger types (by namespace and id) and bindings (by id, in order of creation)."""

    def __init__(self) -> None:
        self.types: dict[tuple[str, str], TriggerType] = {}
        self.remembered = RememberedNames()
        self._bindings: dict[str, Binding] = {}
        self._refused: dict[str, Binding] = {}
        self._of_sessions: dict[str, dict[str, Binding]] = {}  # by the function they call, then by id
        # By binding id: what gets the provider's answer.
        self.awaited: dict[str, Callable[[TriggerRegistrationResult], None]] = {}
        self._alike: dict[int, dict[str, Binding]] = {}  # of peers, by likeness and id
        self._aliases: dict[str, str] = {}  # ids that other binders gave to a binding -> the id it has

    @property
    def is_settled(self) -> bool:
        """Whether every provider has answered about the bindings that it was asked to take."""
        return not any(binding.is_offered for binding in self)

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._bindings.values())

    def find(self, id: str) -> Binding | None:
        return self._bindings.get(self._aliases.get(id, id))

    def type_of(self, binding: Binding) -> TriggerType | None:
        """Return the trigger type of a binding: of the namespace it names, else the binder's, else the default one."""
        if binding.strict_namespace is not None:
            return self.types.get((binding.strict_namespace, binding.trigger_type))
        home = self.types.get((binding.home, binding.trigger_type))
        return home or self.types.get((DEFAULT_NAMESPACE, binding.trigger_type))

    def bind(self, binding: Binding) -> Outgoing:
        """Add a binding, in place of the existing one of the same id."""
        out = self.remove(binding.id)
        self._bindings[binding.id] = binding
        self._alike.setdefault(binding.likeness, {})[binding.id] = binding
        if binding.rights is not None:
            self._of_sessions.setdefault(binding.function_id, {})[binding.id] = binding
        return out + self._place(binding)

    def adopt(self, binding: Binding, binder: Peer) -> Outgoing:
        """Add a binding of a supervised worker. If the worker has the same one already, the provider hears nothing."""
        existing = self._existing(binding, binder)
        if existing is None:
            return self.release(binding.id, binder) + self.bind(binding)
        self._aliases.pop(existing.binders.get(binder, ""), None)
        existing.binders[binder] = binding.id
        if existing.id != binding.id:
            self._aliases[binding.id] = existing.id
        return self._place(existing)

    def _existing(self, binding: Binding, binder: Peer) -> Binding | None:
        """Return the worker's binding that the new one repeats: the one of its id, else one that this peer lacks."""
        same_id = self.find(binding.id)
        if same_id is not None:
            return same_id if same_id.owner is binder.owner and same_id.is_same_as(binding) else None
        for existing in self._alike.get(binding.likeness, {}).values():
            if existing.owner is binder.owner and binder not in existing.binders and existing.is_same_as(binding):
                return existing
        return None

    def remove(self, id: str) -> Outgoing:
        """Remove a binding, parked or not; an unknown id is no error."""
        binding = self._bindings.pop(self._aliases.get(id, id), None)
        if binding is None:
            return []
        for alias in binding.binders.values():
            self._aliases.pop(alias, None)
        _take_out(self._alike, binding.likeness, binding.id)
        if binding.rights is not None:
            _take_out(self._of_sessions, binding.function_id, binding.id)
        self._refused.pop(binding.id, None)
        if binding.provider is None:
            return []
        return _unbind(binding) + self._offer_refused(binding)

    def _offer_refused(self, gone: Binding) -> Outgoing:
        """A binding has gone: its provider may take now what it refused before."""
        trigger_type = self.type_of(gone)
        if trigger_type is None or trigger_type.provider is not gone.provider:
            return []
        trigger_type.removals += 1
        refused = [each for each in self._refused.values() if self.type_of(each) is trigger_type]
        return [message for binding in _project_first(refused) for message in self._place(binding)]

    def release(self, id: str, binder: Peer) -> Outgoing:
        """Take the peer out of a binding. One that other instances still want stays, any other is removed."""
        binding = self.find(id)
        if binding is None or binder not in binding.binders:
            return self.remove(id)
        self._aliases.pop(binding.binders.pop(binder), None)
        return [] if binding.binders else self.remove(binding.id)

    def provide(self, declaration: RegisterTriggerType, provider: Peer) -> Outgoing:
        """Add or replace a trigger type, and hand its bindings to the new provider."""
        namespace = declaration.namespace or provider.namespace
        former = self.types.get((namespace, declaration.id))
        provided = self.types[namespace, declaration.id] = TriggerType(declaration, namespace, provider)
        provider.owner.fires_triggers = True
        if former is not None and former.provider.owner is provider.owner:
            standbys = [*former.standbys, former]
            provided.standbys = [standby for standby in standbys if standby.provider is not provider]
        return self._replace_all(declaration.id)

    def withdraw(self, provider: Peer, id: str, namespace: str | None = None) -> Outgoing:
        """Take a trigger type from this provider; its bindings go to another provider or are parked."""
        key = (namespace or provider.namespace, id)
        trigger_type = self.types.pop(key, None)
        if trigger_type is None:
            return []
        standbys = [standby for standby in trigger_type.standbys if standby.provider is not provider]
        if trigger_type.provider is not provider:
            self.types[key] = trigger_type
            trigger_type.standbys = standbys
            return []
        if standbys:
            successor = self.types[key] = standbys.pop()
            successor.standbys = standbys
        return self._replace_all(id)

    def forget_binder(self, binder: Peer) -> Outgoing:
        """Take the peer out of the bindings it made, and remove those that have no other binder."""
        out: Outgoing = []
        for binding in [binding for binding in self if binder in binding.binders]:
            out += self.release(binding.id, binder)
        return out

    def forget_gone(self, owner: Owner) -> Outgoing:
        """Remove the bindings that only gone processes of the owner had made: the new one has registered its own."""
        binders = {binder for binding in self if binding.owner is owner for binder in binding.binders}
        return [message for binder in binders if binder.is_gone for message in self.forget_binder(binder)]

    def forget_provider(self, provider: Peer) -> Outgoing:
        """Remove every trigger type of this peer, which has left."""
        if provider.rights is None:
            for (namespace, id), trigger_type in self.types.items():
                if trigger_type.provider is provider:
                    self.remembered.add(namespace, id)
        return [
            message
            for trigger_type in list(self.types.values())
            for message in self.withdraw(provider, trigger_type.id, trigger_type.namespace)
        ]

    def answered(self, provider: Peer, result: TriggerRegistrationResult) -> Outgoing:
        """Take a provider's answer. A refusal goes to the binders, and the binding waits until another one goes."""
        binding = self.find(result.id)
        if binding is None or binding.provider is not provider:
            return []
        if not is_empty(result.error) and (out := self._offer_again(binding, provider)):
            return out
        binding.is_offered = False
        if binding.id in self.awaited:
            self.awaited.pop(binding.id)(result)
        if is_empty(result.error):
            return []
        binding.provider = None
        binding.refusal = result.error
        self._refused[binding.id] = binding
        out = binding.told(result.error)
        if binding.rights is not None:
            refused = [each for each in self._refused.values() if each.rights is binding.rights]
            if len(refused) > MAX_REFUSED_PER_SESSION:
                self.remove(binding.id)
        return out

    def _offer_again(self, binding: Binding, provider: Peer) -> Outgoing:
        """Ask the provider that refused a binding once more, if something has changed or can be changed for it.

        Another binding has gone while the answer was on its way; or sessions have bindings, which give way to one of
        the project: they go, it is offered, and they after it.
        """
        trigger_type = self.type_of(binding)
        if trigger_type is not None and trigger_type.removals != binding.offered_after:
            binding.offered_after = trigger_type.removals
            return [(provider, binding.request_for(provider))]
        if binding.rights is not None or binding.has_asked_for_way:
            return []
        binding.has_asked_for_way = True
        of_sessions = [each for bindings in self._of_sessions.values() for each in bindings.values()]
        others = [each for each in of_sessions if each.provider is provider and self.type_of(each) is trigger_type]
        if not others:
            return []
        out = [message for each in others for message in _unbind(each)]
        return out + [(provider, each.request_for(provider)) for each in [binding, *others]]

    def judge_sessions(self, function_id: str | None = None) -> tuple[list[str], Outgoing]:
        """Remove the bindings of sessions that their rights do not allow any more, and tell their binders why.

        With `function_id`, only those that call this function. Returns also why, for the log.
        """
        reasons: list[str] = []
        out: Outgoing = []
        function_ids = list(self._of_sessions) if function_id is None else [function_id]
        for binding in [each for id in function_ids for each in self._of_sessions.get(id, {}).values()]:
            why = binding.rights.refusal(binding.declaration()) if binding.rights is not None else None
            if why is not None:
                reasons.append(f"trigger {binding.id} of a session removed: {why}")
                out += binding.told(encode_error(ErrorBody(ErrorCode.FORBIDDEN, why)))
                out += self.remove(binding.id)
        return reasons, out

    def _replace_all(self, trigger_type: str) -> Outgoing:
        bindings = _project_first(binding for binding in self if binding.trigger_type == trigger_type)
        return [message for binding in bindings for message in self._place(binding)]

    def _place(self, binding: Binding) -> Outgoing:
        """Move the binding to the provider that its trigger type has now."""
        trigger_type = self.type_of(binding)
        provider = trigger_type.provider if trigger_type else None
        if provider is not None and not binding.may_go_to(provider):
            provider = None
        before = binding.provider
        if provider is before and not binding.is_refused:
            return []
        # A retired process keeps a binding that has no new provider: its last writes still have to fire.
        keeps = provider is None and before is not None and before.is_retired
        out = [] if keeps else _unbind(binding)
        binding.provider = provider
        binding.is_offered = provider is not None
        binding.refusal = ABSENT
        binding.has_asked_for_way = False
        self._refused.pop(binding.id, None)
        if provider is not None and trigger_type is not None:
            binding.offered_after = trigger_type.removals
            out.append((provider, binding.request_for(provider)))
        return out


def _project_first(bindings: Iterable[Binding]) -> list[Binding]:
    """Return the bindings in their order, those of sessions last."""
    return sorted(bindings, key=lambda binding: binding.rights is not None)


def _take_out(table: dict[Key, dict[str, Binding]], key: Key, id: str) -> None:
    """Remove a binding from one of the groups of a table, and the group with its last one."""
    del table[key][id]
    if not table[key]:
        del table[key]


def _unbind(binding: Binding) -> Outgoing:
    if binding.provider is None:
        return []
    return [(binding.provider, UnregisterTrigger(binding.id, binding.trigger_type))]
