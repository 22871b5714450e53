"""The trigger types `flow`, which makes a function a flow, and `flow:ended`, which tells of runs that have ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, NamedTuple

from iii import TriggerConfig, TriggerHandler
from iii.durations import parse_duration
from stdlib_workers.events import Target, target_from

# States of a run that `flow:ended` tells of.
STATES = ("completed", "failed", "cancelled", "blocked")
ON_CHANGE = ("stop", "continue")


class Flow(NamedTuple):
    """What a function's binding says of its runs.

    `id_field`: a path in the input whose value is the run's id. `continues`: a change of the code skips recorded steps.
    """

    function_id: str
    namespace: str | None
    code: str
    id_field: str | None = None
    timeout_ms: int | None = None
    continues: bool = False

    @property
    def target(self) -> tuple[str | None, str]:
        return self.namespace, self.function_id


class Flows(TriggerHandler):
    """The provider of `flow`: the registered flows by namespace and function."""

    def __init__(self) -> None:
        self._by_id: dict[str, Flow] = {}
        self._by_target: dict[tuple[str | None, str], Flow] = {}

    def follow(self, on_bound: Callable[[Flow], Awaitable[None]], on_unbound: Callable[[Flow], None]) -> None:
        """Call these with every flow that is bound, and with every one that is no more. Before any binding."""
        self._on_bound = on_bound
        self._on_unbound = on_unbound

    def find(self, namespace: str | None, function_id: str) -> Flow | None:
        """Return a registered flow, None for any other function."""
        return self._by_target.get((namespace, function_id))

    def __iter__(self) -> Iterator[Flow]:
        return iter(self._by_target.values())

    async def register_trigger(self, config: TriggerConfig) -> None:
        """Make a function a flow. ValueError for a wrong config."""
        flow = flow_from(config)
        self._by_id[config.id] = self._by_target[flow.target] = flow
        await self._on_bound(flow)

    async def unregister_trigger(self, config: TriggerConfig) -> None:
        """Let the runs of a function wait until it is bound again, unless another worker has bound it."""
        flow = self._by_id.pop(config.id, None)
        if flow is None:
            return
        others = [other for other in self._by_id.values() if other.target == flow.target]
        if others:
            self._by_target[flow.target] = others[-1]
        else:
            del self._by_target[flow.target]
            self._on_unbound(flow)


def flow_from(config: TriggerConfig) -> Flow:
    """Return what a binding of `flow` says. ValueError for what it must not."""
    fields = config.config if isinstance(config.config, dict) else {}
    unknown = sorted(set(fields) - {"id_field", "timeout_ms", "timeout", "on_change", "code"})
    if unknown:
        raise ValueError(f"a flow has no option {unknown[0]}; there are id_field, timeout, on_change and code")
    timeout, id_field = fields.get("timeout_ms"), fields.get("id_field")
    if timeout is None and fields.get("timeout") is not None:
        timeout = round(parse_duration(str(fields["timeout"])) * 1000)
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 1):
        raise ValueError(f"timeout_ms of a flow is a positive number of milliseconds, not {timeout!r}")
    if id_field is not None and (not isinstance(id_field, str) or not id_field):
        raise ValueError(f"id_field of a flow is a path in its input, not {id_field!r}")
    on_change = fields.get("on_change", "stop")
    if on_change not in ON_CHANGE:
        raise ValueError(f"on_change of a flow is stop or continue, not {on_change!r}")
    code = str(fields.get("code") or "")
    return Flow(config.function_id, config.namespace, code, id_field, timeout, on_change == "continue")


class EndedSubscription(NamedTuple):
    """A binding of `flow:ended`: which runs it wants to hear of, and what it calls."""

    states: tuple[str, ...]
    function_id: str | None
    target: Target

    def wants(self, state: str, function_id: str) -> bool:
        """Tell whether a run is one of those."""
        return state in self.states and self.function_id in (None, function_id)


def subscription_from(config: TriggerConfig) -> EndedSubscription:
    """Return what a binding of `flow:ended` says. ValueError for what it must not."""
    fields = config.config if isinstance(config.config, dict) else {}
    states = fields.get("states")
    if states is None:
        states = STATES
    if not isinstance(states, Iterable) or isinstance(states, str) or not set(states) <= set(STATES):
        raise ValueError(f"states of flow:ended are some of {', '.join(STATES)}, not {states!r}")
    return EndedSubscription(tuple(states), fields.get("flow"), target_from(config))


def value_at(value: Any, path: str) -> Any:
    """Return what a path like `body.order` leads to in a JSON value, None if it leads nowhere."""
    for name in path.split("."):
        if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, dict):
            value = value.get(name)
        else:
            return None
    return value
