"""What a session may do: one table over what a message names, and whose that name is. Pure.

A session is a connection on a listener with rules. Every message of the protocol has its rows here, and so have the
engine's own functions that act on a name in their payload: a call of one is the same request by another entrance. A
message has one row for each kind of thing it names; all of them have to allow it. The joining of the table with the
router's tables and the listener's rules is in `iii/engine/gateway/session_rights.py`.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

from msgspec import Struct

from iii.engine.security.rbac import is_reserved
from iii.protocol import messages as m


class Standing(Enum):
    """Whose a name is, seen from a session."""

    OWN = "its own"
    FREE = "nobody's"
    SESSION = "another session's"
    PROJECT = "the project's"  # also while the worker that has it starts, is stopped or has failed
    ENGINE = "the engine's"  # or a standard worker's, whether or not the project has that worker


class Verdict(Enum):
    """What a row says: yes, no, or what the listener's rules and its auth function say."""

    ALLOW = "allow"
    DENY = "deny"
    RULES = "rules"


# What a message can name. A "call" is named by who runs it or waits for it, an "offer" by the provider it was made to.
Thing = Literal[
    "action",
    "binding",
    "call",
    "connection",
    "function",
    "namespace",
    "observed function",
    "observer",
    "offer",
    "trigger type",
    "worker",
    "nothing",
]


class Row(Struct, frozen=True):
    """The verdicts about one kind of thing, by whose it is."""

    thing: Thing
    own: Verdict
    free: Verdict
    session: Verdict
    project: Verdict
    engine: Verdict

    def verdict(self, standing: Standing) -> Verdict:
        verdict = getattr(self, standing.name.lower())
        assert isinstance(verdict, Verdict)
        return verdict


_ALLOW, _DENY, _RULES = Verdict.ALLOW, Verdict.DENY, Verdict.RULES


def _always(thing: Thing, verdict: Verdict) -> Row:
    return Row(thing, *[verdict] * 5)


def _only_own(thing: Thing) -> Row:
    """A thing that only its maker may change, end or answer. With nobody's, there is nothing to do."""
    return Row(thing, own=_ALLOW, free=_ALLOW, session=_DENY, project=_DENY, engine=_DENY)


_NOTHING = (_always("nothing", _ALLOW),)
_NEVER = (_always("nothing", _DENY),)
# What a session has called, now or later, is what the rules say, whoever provides it.
_CALLED = _always("function", _RULES)
_BOUND_TYPE = _always("trigger type", _RULES)
# A session that registers what another one has stands by for it, as the next process of one worker does.
_REGISTERED = Row("function", own=_RULES, free=_RULES, session=_RULES, project=_DENY, engine=_DENY)
_PROVIDED_TYPE = Row("trigger type", own=_RULES, free=_RULES, session=_DENY, project=_DENY, engine=_DENY)
_WORKER_NAME = Row("worker", own=_ALLOW, free=_ALLOW, session=_ALLOW, project=_DENY, engine=_DENY)

TABLE: dict[type[m.Message], tuple[Row, ...]] = {
    m.InvokeFunction: (_CALLED,),
    m.InvocationResult: (_only_own("call"),),
    m.InvocationItem: (_only_own("call"),),
    m.ItemsTaken: (_only_own("call"),),
    m.Cancel: (_only_own("call"),),
    m.RegisterFunction: (_REGISTERED,),
    m.UnregisterFunction: (_only_own("function"),),
    m.RegisterService: _NOTHING,  # without effect
    m.RegisterTriggerType: (_PROVIDED_TYPE, _always("namespace", _RULES)),
    m.UnregisterTriggerType: (_only_own("trigger type"),),
    m.RegisterTrigger: (_only_own("binding"), _BOUND_TYPE, _always("namespace", _RULES), _CALLED),
    m.UnregisterTrigger: (_only_own("binding"),),
    m.TriggerRegistrationResult: (_only_own("offer"),),
    # An action sees the calls of all peers: only the project's own workers may have one.
    m.RegisterAction: (_always("action", _DENY),),
    m.UnregisterAction: (_always("action", _DENY),),
    # An observer sees the calls of all peers: a session may observe only what it runs itself.
    m.Observe: (
        _only_own("observer"),
        Row("observed function", own=_ALLOW, free=_DENY, session=_DENY, project=_DENY, engine=_DENY),
        _CALLED,
    ),
    m.Unobserve: (_only_own("observer"),),
    # What these say counts only for functions that the sender runs, whoever it is.
    m.ObserverAck: _NOTHING,
    m.InvocationsObserved: _NOTHING,
    m.LocalInvocationStats: _NOTHING,
    m.Ready: _NOTHING,
    # Spans, metrics and log records are what the project knows of itself. Which trace a span belongs to and which span
    # it replaces are only what its sender says. What a session calls and answers, the engine records itself.
    m.Telemetry: _NEVER,
    m.Ping: _NOTHING,
    m.Pong: _NOTHING,
    # The token that the engine gave to the earlier connection decides, but never about a worker of the project.
    m.Reattach: (Row("connection", own=_ALLOW, free=_ALLOW, session=_ALLOW, project=_DENY, engine=_DENY),),
    # What only the engine says.
    m.Stop: _NEVER,
    m.ObserveResult: _NEVER,
    m.ObserverStateChanged: _NEVER,
    m.FunctionRegistered: _NEVER,
    m.ObserverAdded: _NEVER,
    m.ObserverRemoved: _NEVER,
    m.WorkerRegistered: _NEVER,
    m.RegistrationRejected: _NEVER,
    m.ChannelOpen: _NEVER,
    m.ChannelOpened: _NEVER,
    m.Error: _NEVER,
}

# Calls of the engine's functions, after the row of every call. They name things in their payload.
ENTRANCES: dict[str, tuple[Row, ...]] = {
    "engine::workers::register": (_WORKER_NAME, _always("namespace", _RULES)),
    "engine::register_trigger": (_BOUND_TYPE, _always("namespace", _RULES), _CALLED),
    "engine::unregister_trigger": (_only_own("binding"),),
    "engine::channels::create": _NOTHING,  # the channel has a key of its own
    "engine::connections::check": _NOTHING,
    "engine::cluster::info": _NOTHING,
    "engine::counters::list": _NOTHING,
    "engine::health": _NOTHING,
    # What these answer is cut to what the session may call and has bound itself.
    **dict.fromkeys(
        (
            *("engine::functions::list", "engine::functions::info", "engine::workers::list", "engine::workers::info"),
            *("engine::triggers::list", "engine::triggers::info", "engine::trigger-types::list"),
            "engine::trigger-types::info",
            *("engine::registered-triggers::list", "engine::registered-triggers::info"),
            *("engine::observers::list", "engine::observers::get"),
        ),
        _NOTHING,
    ),
    # Exposing one of these is the permission.
    **dict.fromkeys(("engine::workers::start", "engine::workers::stop", "engine::workers::restart"), _NOTHING),
    "engine::config::list": _NOTHING,
}
# A call of any other function of the engine or of a standard worker: what it has called later, as a queue does.
_STANDARD = (_CALLED,)


def rows_of(message: m.Message) -> tuple[Row, ...]:
    """Return the rows of a message, without those for its payload."""
    return TABLE[type(message)]


def entrance_rows(function_id: str) -> tuple[Row, ...]:
    """Return the rows for what a call of this function names in its payload."""
    rows = ENTRANCES.get(function_id)
    return rows if rows is not None else _STANDARD if is_reserved(function_id) else ()
