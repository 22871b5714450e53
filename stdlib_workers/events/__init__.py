"""Events of standard workers: the bindings of a trigger type, conditions, and delivery in order from an outbox.

What the events mean is the workers' own.
"""

from stdlib_workers.events.background import Background
from stdlib_workers.events.bindings import Bindings, Caller, Target, Trace, current_trace, fire, target_from
from stdlib_workers.events.known_bindings import KnownBindings
from stdlib_workers.events.outbox import TOPIC, Outbox, envelope

__all__ = [
    "TOPIC",
    "Background",
    "Bindings",
    "Caller",
    "KnownBindings",
    "Outbox",
    "Target",
    "Trace",
    "current_trace",
    "envelope",
    "fire",
    "target_from",
]
