"""A worker on the published Python SDK, observing and observed, driven by calls: `official_observer.py URL NAME`."""

import sys
import threading

from iii import InitOptions, InvocationError, ObserveHooks, ObserveRejection, register_worker

url, name = sys.argv[1:]
worker = register_worker(url, InitOptions(worker_name=name))
seen = []
handles = {}
states = {}
hooks_seen = []
never = threading.Event()


def charge(data):
    if isinstance(data, dict) and "fail" in data:
        raise ValueError(data["fail"])
    return {"charged": data}


def target(data, metadata=None):
    inv = worker.current_invocation()
    seen.append({"data": data, "metadata": metadata, "caller": inv.caller, "depth": inv.observe_depth})
    return {"taken": len(seen)}


def chain(data):
    """A target that calls what it observes again, as long as it is told to."""
    target(data)
    worker.trigger({"function_id": f"{name}::charge", "payload": {"again": True}})


def added(obs):
    hooks_seen.append(["added", obs.id, obs.args])
    if obs.args.get("reject"):
        raise ObserveRejection("NO_SUCH_FEED", "there is no such feed")
    if obs.args.get("raise"):
        raise ValueError("the hook has failed")


def removed(obs):
    hooks_seen.append(["removed", obs.id, obs.args])


def emit(data):
    return [obs.emit(data["event"]) for obs in feed.observers()]


def ask(data):
    answers = []
    for obs in feed.observers():
        try:
            answers.append(obs.call(data["payload"]))
        except InvocationError as error:
            answers.append({"code": error.code})
    return answers


def reject_late(data):
    for obs in feed.observers():
        obs.reject("LATE", "changed my mind")


def call_charge(data):
    """Call the worker's own function many times; return how often that was refused."""
    results = []
    for number in range(data.get("count", 1)):
        try:
            results.append(
                worker.trigger({"function_id": f"{name}::charge", "payload": data["payload"] | {"n": number}})
            )
        except InvocationError as error:
            results.append({"code": error.code})
    return len(results)


def observe(data):
    handle = worker.observe(data["source"], data["target"], data.get("options"))
    handles[handle.id] = handle
    states[handle.id] = [handle.state]
    handle.on_state_change(lambda state, reason: states[handle.id].append([state, (reason or {}).get("code")]))
    return handle.id


def observed(data):
    handle = handles[data["id"]]
    return {"state": handle.state, "reason": handle.reason, "states": states[data["id"]]}


def dispose(data):
    handles[data["id"]].dispose()


def drain(data):
    taken = list(seen)
    seen.clear()
    return taken


for function in (target, chain, emit, ask, reject_late, call_charge, observe, observed, dispose, drain):
    worker.register_function(f"{name}::{function.__name__}", function)
worker.register_function(f"{name}::charge", charge)
worker.register_function(f"{name}::closed", charge, observe=ObserveHooks(allow=False))
feed = worker.register_function(
    f"{name}::feed",
    charge,
    observe=ObserveHooks(
        delivery="owner",
        legacy_trigger_type=f"{name}-feed",
        args_format={"type": "object", "properties": {"topic": {"type": "string"}}},
        on_observer_added=added,
        on_observer_removed=removed,
    ),
)
worker.register_function(f"{name}::legacy", lambda data: [obs.legacy for obs in feed.observers()])
worker.register_function(f"{name}::hooks", lambda data: hooks_seen)
worker.register_function(f"{name}::is_local", lambda data: worker._functions[f"{name}::charge"].observe.local_dispatch)
never.wait()
