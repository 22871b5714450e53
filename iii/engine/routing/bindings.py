"""Trigger types and the bindings of functions to them: tables and the decisions over them. Pure.

Every change returns the messages that must go out, as `(peer, message)` pairs. A binding whose trigger type has no
provider is parked; it is sent, with the same id and in the order of creation, as soon as a provider appears.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from iii.engine.routing.peer import Owner, Peer
from iii.protocol.messages import (
    DEFAULT_NAMESPACE,
    Message,
    RegisterTrigger,
    RegisterTriggerType,
    TriggerRegistrationResult,
    UnregisterTrigger,
    is_empty,
    or_null,
)

Outgoing = list[tuple[Peer, Message]]


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


class Binding:
    """One event -> function binding.

    `binders` are the peers that registered it, each with its own id for the binding: the instances of one worker share
    a binding, and a new generation takes over the old one's. A durable binding (`engine::register_trigger`) has no
    binders, and stays when the peer that asked for it leaves.
    """

    def __init__(self, message: RegisterTrigger, binder: Peer | None) -> None:
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
        self.provider: Peer | None = None

    def is_same_as(self, other: Binding) -> bool:
        """Whether both bind the same function to the same event in the same way."""
        return replace(other.request(), id=self.id) == self.request()

    def request(self) -> RegisterTrigger:
        """Return the message that registers this binding with the provider."""
        return RegisterTrigger(
            id=self.id,
            trigger_type=self.trigger_type,
            function_id=self.function_id,
            config=self.config,
            metadata=self.metadata,
            namespace=None if self.namespace == DEFAULT_NAMESPACE else self.namespace,
            trigger_namespace=self.strict_namespace,
        )


class Bindings:
    """The tables of trigger types (by namespace and id) and bindings (by id, in order of creation)."""

    def __init__(self) -> None:
        self.types: dict[tuple[str, str], TriggerType] = {}
        self._bindings: dict[str, Binding] = {}
        # By binding id: what gets the provider's answer.
        self.awaited: dict[str, Callable[[TriggerRegistrationResult], None]] = {}
        self._aliases: dict[str, str] = {}  # ids that other binders gave to a binding -> the id it has

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
        for existing in self:
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
        return _unbind(binding)

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
        """Remove every trigger type of this peer."""
        return [
            message
            for trigger_type in list(self.types.values())
            for message in self.withdraw(provider, trigger_type.id, trigger_type.namespace)
        ]

    def answered(self, provider: Peer, result: TriggerRegistrationResult) -> Outgoing:
        """Take a provider's answer. A refusal parks the binding and goes to its binders."""
        binding = self.find(result.id)
        if binding is None or binding.provider is not provider:
            return []
        if binding.id in self.awaited:
            self.awaited.pop(binding.id)(result)
        if is_empty(result.error):
            return []
        binding.provider = None
        return [
            (binder, TriggerRegistrationResult(id, binding.trigger_type, binding.function_id, result.error))
            for binder, id in binding.binders.items()
        ]

    def _replace_all(self, trigger_type: str) -> Outgoing:
        return [message for binding in self if binding.trigger_type == trigger_type for message in self._place(binding)]

    def _place(self, binding: Binding) -> Outgoing:
        """Move the binding to the provider that its trigger type has now."""
        trigger_type = self.type_of(binding)
        provider = trigger_type.provider if trigger_type else None
        before = binding.provider
        if provider is before:
            return []
        # A retired process keeps a binding that has no new provider: its last writes still have to fire.
        keeps = provider is None and before is not None and before.is_retired
        out = [] if keeps else _unbind(binding)
        binding.provider = provider
        if provider is not None:
            out.append((provider, binding.request()))
        return out


def _unbind(binding: Binding) -> Outgoing:
    if binding.provider is None:
        return []
    return [(binding.provider, UnregisterTrigger(binding.id, binding.trigger_type))]
