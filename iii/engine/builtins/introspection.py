"""The answers of `engine::functions::list` and the other lists: rows made from the router's tables. Pure.

Shapes follow the public contract (docs/protocol.md), with the additions of supervised workers. `viewer` is the peer
that asks. A session sees the functions that it may call, the trigger types that it may bind to, and its own bindings.
The metadata of a binding are between its binder, the provider and the function: others never see them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from msgspec import Raw, Struct

from iii.engine.observing.owners import why_not_local
from iii.engine.routing.bindings import Binding, TriggerType
from iii.engine.routing.peer import Peer, Rights
from iii.engine.routing.registry import Function
from iii.engine.routing.router import Router
from iii.errors import ErrorCode, InvocationError
from iii.protocol.codec import decode_value, encode_value
from iii.protocol.messages import ABSENT, DEFAULT_NAMESPACE, is_empty

Row = dict[str, Any]

# Characters of a trigger's config that a list shows: it fits a column of a table.
_SUMMARY = 80
# Ids in one `functions::info` (public contract).
_MAX_BATCH = 32
# What a session sees of a worker of the project: nothing about its process.
_SEEN_BY_SESSIONS = ("name", "description", "id", "namespace", "runtime", "status")


class Filters(Struct, gc=False):
    """What the list functions take; unknown keys are ignored."""

    search: str | None = None
    prefix: str | None = None
    worker: str | None = None
    workers: list[str] = []
    include_internal: bool = False
    trigger_type: str | None = None
    function_id: str | None = None
    runtime: str | None = None
    status: str | None = None


def functions_list(router: Router, viewer: Peer, filters: Filters) -> Row:
    """Return `{"functions": [summary...]}`, sorted by id, or by how well it matches `search`."""
    rows = function_rows(router, viewer.rights, filters)
    if router.engine_name is not None and viewer.rights is None:
        for row in rows:
            function = router.registry.namespaces[row["namespace"]][row["function_id"]]
            row["engines"] = engines_of(function, router.engine_name)
    return {"functions": rows, **engines(router, viewer)}


def engines_of(function: Function, own: str) -> list[str]:
    """Return the names of the engines that have a function; `own` is this one's."""
    providers = [*function.providers, *(standby for standby, _ in function.standbys)]
    elsewhere = {provider.engine for provider in providers if provider.engine is not None}
    return sorted(elsewhere if function.owner.is_remote else {own, *elsewhere})


def engines(router: Router, viewer: Peer) -> Row:
    """Return `{"engine", "engines"}` of a cluster: this engine's name, and those of all; sessions are told nothing."""
    if router.engine_name is None or viewer.rights is not None:
        return {}
    others = {peer.engine for peer in router.peer_table.peers.values() if peer.engine is not None}
    return {"engine": router.engine_name, "engines": sorted({router.engine_name, *others})}


def function_rows(router: Router, rights: Rights | None, filters: Filters) -> list[Row]:
    """Return the rows of `functions_list`: of those functions that a session with these rights may call."""
    workers = {name for name in [filters.worker, *filters.workers] if name}
    rows = [
        summary(function)
        for function in router.registry
        if (filters.include_internal or not function.is_internal)
        and (not filters.prefix or function.id.startswith(filters.prefix))
        and (not workers or worker_of(function) in workers)
        and (rights is None or rights.may_invoke(function.namespace, function.id))
    ]
    if filters.search:
        ranked = [(_rank(row, filters.search.lower()), row) for row in rows]
        rows = [row for rank, row in sorted(ranked, key=lambda pair: (pair[0], pair[1]["function_id"])) if rank < 3]
    else:
        rows.sort(key=lambda row: row["function_id"])
    return rows


def _rank(row: Row, search: str) -> int:
    name = row["function_id"].lower()
    if name.startswith(search) or any(part.startswith(search) for part in name.split("::")):
        return 0
    if search in name:
        return 1
    return 2 if search in (row.get("description") or "").lower() else 3


def summary(function: Function) -> Row:
    row: Row = {"function_id": function.id, "namespace": function.namespace, "worker_name": worker_of(function)}
    if function.declaration.description:
        row["description"] = function.declaration.description
    if function.metadata:
        row["metadata"] = function.metadata
    return row


def worker_of(function: Function) -> str:
    """Return the name of the function's worker; of the engine's own functions, the first part of the id."""
    if not function.providers:
        return function.owner.name
    provider = function.providers[0]
    return function.id.split("::")[0] if provider.kind == "engine" else provider.worker_of(function.id)


def functions_info(router: Router, viewer: Peer, payload: Mapping[str, Any]) -> Row:
    """Return one function's details, or those of up to 32 under `functions`, in the order asked for."""
    single, several = payload.get("function_id"), payload.get("function_ids")
    namespace = payload.get("namespace")
    if isinstance(single, str) and several is None:
        return detail(router, viewer, _resolve(router, viewer, single, namespace))
    if single is not None or not isinstance(several, list) or not 0 < len(several) <= _MAX_BATCH:
        raise InvocationError(
            ErrorCode.INVALID_ARGUMENTS, f"give either function_id or function_ids with 1 to {_MAX_BATCH} ids"
        )
    rows: list[Row] = []
    for function_id in dict.fromkeys(str(item) for item in several):
        try:
            rows.append(detail(router, viewer, _resolve(router, viewer, function_id, namespace)))
        except InvocationError as error:
            rows.append({"function_id": function_id, "error": error.code.lower()})
    return {"functions": rows}


def _resolve(router: Router, viewer: Peer, function_id: str, namespace: Any) -> Function:
    """Find a function: in `namespace` if given, else in the default one, else the only one of that id.

    What a session may not call is forbidden, whether or not it exists.
    """
    rights = viewer.rights
    namespaces = router.registry.namespaces_with(function_id)
    if rights is not None:
        namespaces = [name for name in namespaces if rights.may_invoke(name, function_id)]
    if not isinstance(namespace, str) or not namespace:
        namespace = namespaces[0] if len(namespaces) == 1 else DEFAULT_NAMESPACE
    if rights is not None and not rights.may_invoke(namespace, function_id):
        text = f"function '{function_id}' not allowed (add to rbac.expose_functions)"
        raise InvocationError(ErrorCode.FORBIDDEN, text)
    function = router.registry.find(namespace, function_id)
    if function is None:
        hint = f"; it is in several namespaces: {', '.join(namespaces)}" if len(namespaces) > 1 else ""
        raise InvocationError(ErrorCode.NOT_FOUND, f"function {function_id} not found{hint}")
    return function


def detail(router: Router, viewer: Peer, function: Function) -> Row:
    declaration = function.declaration
    row = summary(function)
    schemas = {"request_schema": declaration.request_format, "response_schema": declaration.response_format}
    row |= _decoded({**schemas, "source": declaration.source})
    if viewer.rights is None:
        row |= _local_dispatch(router, function)
    row["registered_triggers"] = [
        {"id": binding.id, "trigger_type": binding.trigger_type, "config": decode_value(binding.config)}
        for binding in _listed(router, viewer)
        if binding.function_id == function.id and binding.namespace == function.namespace
    ]
    return row


def _local_dispatch(router: Router, function: Function) -> Row:
    """Return whether the workers of a function run their own calls of it themselves, and why not.

    Nothing of functions without a worker, and of the engine's own.
    """
    peers = [peer for peer in function.providers if peer.kind == "worker"]
    reasons = [why_not for peer in peers if (why_not := why_not_local(router.calls, peer, function)) is not None]
    if not peers:
        return {}
    return {"local_dispatch": not reasons} | ({"why_not": reasons[0]} if reasons else {})


def _listed(router: Router, viewer: Peer) -> Iterator[Binding]:
    """Yield the bindings that a list shows: no refused ones, and to a session only its own."""
    for binding in router.bindings:
        if not binding.is_refused and (viewer.rights is None or binding.rights is viewer.rights):
            yield binding


def _decoded(fields: Mapping[str, Raw]) -> Row:
    return {key: decode_value(raw) for key, raw in fields.items() if not is_empty(raw)}


def trigger_types_list(router: Router, viewer: Peer, filters: Filters) -> Row:
    """Return `{"trigger_types": [...]}` with their schemas, sorted by id."""
    types = _seen_types(router, viewer, filters)
    return {"trigger_types": [type_summary(trigger_type) | type_schemas(trigger_type) for trigger_type in types]}


def _seen_types(router: Router, viewer: Peer, filters: Filters) -> list[TriggerType]:
    types = [
        trigger_type
        for trigger_type in router.bindings.types.values()
        if _matches(trigger_type.id, filters)
        and (filters.include_internal or not trigger_type.id.startswith("engine::"))
        and (not filters.worker or _provider_name(trigger_type.provider) == filters.worker)
        and (viewer.rights is None or viewer.rights.may_bind_to(trigger_type.id))
    ]
    return sorted(types, key=lambda trigger_type: (trigger_type.id, trigger_type.namespace))


def type_summary(trigger_type: TriggerType) -> Row:
    return {
        "id": trigger_type.id,
        "namespace": trigger_type.namespace,
        "worker_name": _provider_name(trigger_type.provider),
        "description": trigger_type.declaration.description or "",
    }


def type_schemas(trigger_type: TriggerType) -> Row:
    """Return the schemas that a type has: of a binding's config, of its event, and of the answer to it."""
    declaration = trigger_type.declaration
    return _decoded(
        {
            "configuration_schema": declaration.trigger_request_format,
            "request_schema": declaration.call_request_format,
            "response_schema": declaration.call_response_format,
        }
    )


def _provider_name(provider: Peer) -> str:
    return "engine" if provider.kind == "engine" else provider.owner.name


def triggers_info(router: Router, viewer: Peer, payload: Mapping[str, Any]) -> Row:
    """Return one trigger type's details, with its schemas and how many bindings it has."""
    id, namespace = str(payload.get("id")), payload.get("namespace")
    types = router.bindings.types.values() if viewer.rights is None or viewer.rights.may_bind_to(id) else ()
    trigger_type = next((type for type in types if type.id == id and namespace in (None, type.namespace)), None)
    if trigger_type is None:
        raise InvocationError(ErrorCode.NOT_FOUND, f"trigger type {id} not found")
    count = sum(router.bindings.type_of(binding) is trigger_type for binding in _listed(router, viewer))
    return {**type_summary(trigger_type), **type_schemas(trigger_type), "instance_count": count}


def registered_triggers_list(router: Router, viewer: Peer, filters: Filters) -> Row:
    """Return `{"registered_triggers": [...]}`: every binding but the refused ones, sorted by id."""
    rows = [
        binding_row(binding, viewer)
        for binding in _listed(router, viewer)
        if _matches(f"{binding.trigger_type} {binding.function_id} {binding.id}", filters)
        and filters.trigger_type in (None, binding.trigger_type)
        and filters.function_id in (None, binding.function_id)
        and (not filters.worker or _binder_name(binding) == filters.worker)
    ]
    return {"registered_triggers": sorted(rows, key=lambda row: str(row["id"]))}


def triggers_list(router: Router, viewer: Peer, filters: Filters) -> Row:
    """Return every binding, grouped by trigger type, as `triggers`; and the types alone beside them.

    A row of `triggers` is the type's, with its `bindings`. Bindings to a type that no worker provides are in a row
    without `worker_name`. Filters keep the types that they fit, and the bindings that they fit with their types.
    """
    types = [type_summary(trigger_type) for trigger_type in _seen_types(router, viewer, filters)]
    rows: dict[tuple[str, str | None], Row] = {(row["id"], row["namespace"]): {**row, "bindings": []} for row in types}
    for binding in registered_triggers_list(router, viewer, filters)["registered_triggers"]:
        found = router.bindings.find(binding["id"])
        provided = router.bindings.type_of(found) if found is not None else None
        key = binding["trigger_type"], provided.namespace if provided else None
        if key not in rows:
            absent = {"id": key[0], "namespace": None, "worker_name": None, "description": ""}
            rows[key] = {**(type_summary(provided) if provided else absent), "bindings": []}
        rows[key]["bindings"].append(binding)
    listed = sorted(rows.values(), key=lambda row: (row["id"], row["namespace"] or ""))
    return {"triggers": listed, "trigger_types": types, **engines(router, viewer)}


def registered_triggers_info(router: Router, viewer: Peer, payload: Mapping[str, Any]) -> Row:
    """Return one binding with its trigger type and its function; also a refused one, with the provider's `reason`."""
    binding = router.bindings.find(str(payload.get("id")))
    if binding is None or (viewer.rights is not None and binding.rights is not viewer.rights):
        raise InvocationError(ErrorCode.NOT_FOUND, f"trigger {payload.get('id')} not found")
    row = {**binding_row(binding, viewer), "trigger": None, "function": None}
    if binding.is_refused:
        row["reason"] = decode_value(binding.refusal)
    if (type := router.bindings.type_of(binding)) is not None:
        row["trigger"] = triggers_info(router, viewer, {"id": type.id, "namespace": type.namespace})
    if (function := router.registry.find(binding.namespace, binding.function_id)) is not None:
        row["function"] = detail(router, viewer, function)
    return row


def binding_row(binding: Binding, viewer: Peer) -> Row:
    """Return one binding's row. `state` is `bound`, `refused`, or `parked` while its type has no provider."""
    config = decode_value(binding.config)
    compact = encode_value(config).decode()
    row: Row = {
        "id": binding.id,
        "trigger_type": binding.trigger_type,
        "function_id": binding.function_id,
        "worker_name": _binder_name(binding),
        "namespace": binding.namespace,
        "config": config,
        "config_summary": compact if len(compact) <= _SUMMARY else compact[:_SUMMARY] + "…",
        "state": "refused" if binding.is_refused else "bound" if binding.provider is not None else "parked",
    }
    if binding.metadata is not ABSENT and binding.owner is viewer.owner:
        row["metadata"] = decode_value(binding.metadata)
    return row


def _binder_name(binding: Binding) -> str:
    return binding.owner.name if binding.owner else "engine"


def _matches(text: str, filters: Filters) -> bool:
    is_match = not filters.search or filters.search.lower() in text.lower()
    return is_match and (not filters.prefix or text.startswith(filters.prefix))


def workers_list(router: Router, viewer: Peer, rows: Iterable[Mapping[str, Any]], filters: Filters) -> Row:
    """Return `{"workers": [...]}`: the supervised ones (`rows` of the supervisor), then those that connected."""
    workers = [
        row
        for row, _ in _seen_workers(router, viewer, rows)
        if _matches(row["name"], filters)
        and filters.runtime in (None, row["runtime"])
        and filters.status in (None, row["status"])
    ]
    workers.sort(key=lambda row: (row["name"], row.get("instance") or 0, str(row["id"])))
    return {"workers": workers, **engines(router, viewer)}


def workers_info(
    router: Router,
    viewer: Peer,
    rows: Iterable[Mapping[str, Any]],
    payload: Mapping[str, Any],
    reported: Callable[[str], Row | None],
) -> Row:
    """Return one worker by `name` or `worker_id`, with its functions, trigger types and bindings.

    With `namespace` only the worker of that name there; without, one of the default namespace before others.
    `latest_metrics` are those of a process that the engine measures, else what `reported(id)` has of the worker itself.
    """
    name, id = payload.get("name"), payload.get("worker_id") or payload.get("id")
    key, value = ("id", id) if id else ("name", name)
    named = [(row, peer) for row, peer in _seen_workers(router, viewer, rows) if row[key] == value]
    namespace = payload.get("namespace") or None
    matches = [(row, peer) for row, peer in named if namespace in (None, _namespace_of(row))]
    if not matches:
        where = f" in namespace {namespace}" if namespace else ""
        elsewhere = ", ".join(sorted({_namespace_of(row) for row, _ in named}))
        hint = f"; it is in namespace(s): {elsewhere}" if named else ""
        raise InvocationError(ErrorCode.NOT_FOUND, f"worker {id or name} not found{where}{hint}")
    row, peer = min(matches, key=lambda match: _namespace_of(match[0]) != DEFAULT_NAMESPACE)
    rights = viewer.rights
    functions = [
        summary(function)
        for function in (peer.functions if peer else ())
        if rights is None or rights.may_invoke(function.namespace, function.id)
    ]
    bindings = [binding_row(binding, viewer) for binding in _listed(router, viewer) if peer in binding.binders]
    types = [
        type_summary(type)
        for type in router.bindings.types.values()
        if type.provider is peer and (rights is None or rights.may_bind_to(type.id))
    ]
    metrics = row.get("metrics") or reported(row["id"] or "") if rights is None else None
    latest = {**metrics, "runtime": row["runtime"]} if metrics else None
    worker = {**row, "internal": False, "latest_metrics": latest}
    return {"worker": worker, "functions": functions, "trigger_types": types, "registered_triggers": bindings}


def _namespace_of(row: Mapping[str, Any]) -> str:
    # A session is shown a part of a worker's row only.
    return str(row.get("namespace") or DEFAULT_NAMESPACE)


def _seen_workers(router: Router, viewer: Peer, rows: Iterable[Mapping[str, Any]]) -> list[tuple[Row, Peer | None]]:
    """Return the workers; to a session itself, and the names of those that have a function that it may call."""
    workers = _workers(router, rows)
    rights = viewer.rights
    if rights is None:
        return workers
    seen: list[tuple[Row, Peer | None]] = []
    for row, peer in workers:
        functions = peer.functions if peer is not None else ()
        if peer is viewer or any(rights.may_invoke(function.namespace, function.id) for function in functions):
            seen.append((row if peer is viewer else {key: row[key] for key in _SEEN_BY_SESSIONS}, peer))
    return seen


def _workers(router: Router, rows: Iterable[Mapping[str, Any]]) -> list[tuple[Row, Peer | None]]:
    peers = [peer for peer in router.peer_table.peers.values() if peer.kind == "worker"]
    by_run = {(peer.owner.name, peer.instance, peer.generation): peer for peer in peers if peer.owner.is_supervised}
    workers: list[tuple[Row, Peer | None]] = []
    for supervised in rows:
        peer = by_run.get((supervised["name"], supervised["instance"], supervised["generation"]))
        row = _peer_row(peer)
        namespace = row["namespace"] if peer else supervised.get("namespace") or DEFAULT_NAMESPACE
        runtime = row["runtime"] or supervised.get("runtime")  # the worker's own word, else a guess from its command
        workers.append(({**row, **supervised, "namespace": namespace, "runtime": runtime}, peer))
    workers += [(_peer_row(peer), peer) for peer in peers if not peer.owner.is_supervised]
    for row, peer in workers:
        row["status"] = "disconnected" if peer is None else "busy" if peer.busy else "connected"
    return workers


def _peer_row(peer: Peer | None) -> Row:
    info: Mapping[str, Any] = peer.info if peer else {}
    return {
        "name": peer.name if peer else "",
        "description": info.get("description"),
        "version": info.get("version"),
        "id": peer.id if peer else None,
        "namespace": peer.namespace if peer else DEFAULT_NAMESPACE,
        "runtime": info.get("runtime"),
        "os": info.get("os"),
        "pid": peer.pid if peer else None,
        "function_count": len(peer.functions) if peer else 0,
        "connected_at_ms": peer.connected_at_ms if peer else None,
        "active_invocations": peer.busy if peer else 0,
        "isolation": info.get("isolation"),
        "ip_address": peer.ip_address if peer else None,
    }


def filters_from(payload: Raw) -> Filters:
    """Decode the filters of a list call; an absent or null payload means none."""
    return Filters() if is_empty(payload) else decode_value(payload, type=Filters)
