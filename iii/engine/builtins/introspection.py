"""The answers of `engine::functions::list` and the other lists: rows made from the router's tables. Pure.

Shapes follow the public contract (docs/protocol.md), with the additions of supervised workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Raw, Struct

from iii.engine.routing.bindings import Binding, TriggerType
from iii.engine.routing.peer import Peer
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


def functions_list(router: Router, filters: Filters) -> Row:
    """Return `{"functions": [summary...]}`, sorted by id, or by how well it matches `search`."""
    workers = {name for name in [filters.worker, *filters.workers] if name}
    rows = [
        summary(function)
        for function in router.registry
        if (filters.include_internal or not function.is_internal)
        and (not filters.prefix or function.id.startswith(filters.prefix))
        and (not workers or worker_of(function) in workers)
    ]
    if filters.search:
        ranked = [(_rank(row, filters.search.lower()), row) for row in rows]
        rows = [row for rank, row in sorted(ranked, key=lambda pair: (pair[0], pair[1]["function_id"])) if rank < 3]
    else:
        rows.sort(key=lambda row: row["function_id"])
    return {"functions": rows}


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
    if function.providers and function.providers[0].kind == "engine":
        return function.id.split("::")[0]
    return function.owner.name


def functions_info(router: Router, payload: Mapping[str, Any]) -> Row:
    """Return one function's details, or those of up to 32 under `functions`, in the order asked for."""
    single, several = payload.get("function_id"), payload.get("function_ids")
    namespace = payload.get("namespace")
    if isinstance(single, str) and several is None:
        return detail(router, _resolve(router, single, namespace))
    if single is not None or not isinstance(several, list) or not 0 < len(several) <= _MAX_BATCH:
        raise InvocationError(
            ErrorCode.INVALID_ARGUMENTS, f"give either function_id or function_ids with 1 to {_MAX_BATCH} ids"
        )
    rows: list[Row] = []
    for function_id in dict.fromkeys(str(item) for item in several):
        try:
            rows.append(detail(router, _resolve(router, function_id, namespace)))
        except InvocationError:
            rows.append({"function_id": function_id, "error": "not_found"})
    return {"functions": rows}


def _resolve(router: Router, function_id: str, namespace: str | None) -> Function:
    """Find a function: in `namespace` if given, else in the default one, else the only one of that id."""
    namespaces = router.registry.namespaces_with(function_id)
    if not namespace:
        namespace = namespaces[0] if len(namespaces) == 1 else DEFAULT_NAMESPACE
    function = router.registry.find(namespace, function_id)
    if function is None:
        hint = f"; it is in several namespaces: {', '.join(namespaces)}" if len(namespaces) > 1 else ""
        raise InvocationError(ErrorCode.NOT_FOUND, f"function {function_id} not found{hint}")
    return function


def detail(router: Router, function: Function) -> Row:
    declaration = function.declaration
    row = summary(function)
    schemas = {"request_schema": declaration.request_format, "response_schema": declaration.response_format}
    row |= _decoded({**schemas, "source": declaration.source})
    row["registered_triggers"] = [
        {"id": binding.id, "trigger_type": binding.trigger_type, "config": decode_value(binding.config)}
        for binding in router.bindings
        if binding.function_id == function.id and binding.namespace == function.namespace
    ]
    return row


def _decoded(fields: Mapping[str, Raw]) -> Row:
    return {key: decode_value(raw) for key, raw in fields.items() if not is_empty(raw)}


def trigger_types_list(router: Router, filters: Filters) -> Row:
    """Return `{"trigger_types": [...]}`, sorted by id."""
    rows = [
        type_summary(trigger_type)
        for trigger_type in router.bindings.types.values()
        if _matches(trigger_type.id, filters)
        and (filters.include_internal or not trigger_type.id.startswith("engine::"))
        and (not filters.worker or _provider_name(trigger_type.provider) == filters.worker)
    ]
    return {"trigger_types": sorted(rows, key=lambda row: (row["id"], row["namespace"]))}


def type_summary(trigger_type: TriggerType) -> Row:
    return {
        "id": trigger_type.id,
        "namespace": trigger_type.namespace,
        "worker_name": _provider_name(trigger_type.provider),
        "description": trigger_type.declaration.description or "",
    }


def _provider_name(provider: Peer) -> str:
    return "engine" if provider.kind == "engine" else provider.owner.name


def triggers_info(router: Router, payload: Mapping[str, Any]) -> Row:
    """Return one trigger type's details, with its schemas and how many bindings it has."""
    id, namespace = str(payload.get("id")), payload.get("namespace")
    types = router.bindings.types.values()
    trigger_type = next((type for type in types if type.id == id and namespace in (None, type.namespace)), None)
    if trigger_type is None:
        raise InvocationError(ErrorCode.NOT_FOUND, f"trigger type {id} not found")
    declaration = trigger_type.declaration
    schemas = {
        "configuration_schema": declaration.trigger_request_format,
        "request_schema": declaration.call_request_format,
    }
    count = sum(router.bindings.type_of(binding) is trigger_type for binding in router.bindings)
    return {**type_summary(trigger_type), **_decoded(schemas), "instance_count": count}


def registered_triggers_list(router: Router, filters: Filters) -> Row:
    """Return `{"registered_triggers": [...]}`: every binding, sorted by id."""
    rows = [
        binding_row(binding)
        for binding in router.bindings
        if _matches(f"{binding.trigger_type} {binding.function_id} {binding.id}", filters)
        and filters.trigger_type in (None, binding.trigger_type)
        and filters.function_id in (None, binding.function_id)
        and (not filters.worker or _binder_name(binding) == filters.worker)
    ]
    return {"registered_triggers": sorted(rows, key=lambda row: str(row["id"]))}


def triggers_list(router: Router, filters: Filters) -> Row:
    """Return every binding as `triggers`, and the trigger types beside them."""
    bindings = registered_triggers_list(router, filters)["registered_triggers"]
    return {"triggers": bindings, **trigger_types_list(router, filters)}


def registered_triggers_info(router: Router, payload: Mapping[str, Any]) -> Row:
    """Return one binding with its trigger type and its function."""
    binding = router.bindings.find(str(payload.get("id")))
    if binding is None:
        raise InvocationError(ErrorCode.NOT_FOUND, f"trigger {payload.get('id')} not found")
    row = {**binding_row(binding), "trigger": None, "function": None}
    if (type := router.bindings.type_of(binding)) is not None:
        row["trigger"] = triggers_info(router, {"id": type.id, "namespace": type.namespace})
    if (function := router.registry.find(binding.namespace, binding.function_id)) is not None:
        row["function"] = detail(router, function)
    return row


def binding_row(binding: Binding) -> Row:
    """Return one binding's row. `state` is `bound`, or `parked` while its type has no provider."""
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
        "state": "bound" if binding.provider is not None else "parked",
    }
    if binding.metadata is not ABSENT:
        row["metadata"] = decode_value(binding.metadata)
    return row


def _binder_name(binding: Binding) -> str:
    return binding.owner.name if binding.owner else "engine"


def _matches(text: str, filters: Filters) -> bool:
    is_match = not filters.search or filters.search.lower() in text.lower()
    return is_match and (not filters.prefix or text.startswith(filters.prefix))


def workers_list(router: Router, rows: Iterable[Mapping[str, Any]], filters: Filters) -> Row:
    """Return `{"workers": [...]}`: the supervised ones (`rows` of the supervisor), then those that connected."""
    workers = [
        row
        for row, _ in _workers(router, rows)
        if _matches(row["name"], filters)
        and filters.runtime in (None, row["runtime"])
        and filters.status in (None, row["status"])
    ]
    return {"workers": sorted(workers, key=lambda row: (row["name"], row.get("instance") or 0, str(row["id"])))}


def workers_info(
    router: Router, rows: Iterable[Mapping[str, Any]], payload: Mapping[str, Any], reported: Callable[[str], Row | None]
) -> Row:
    """Return one worker by `name` or `worker_id`, with its functions, trigger types and bindings.

    `latest_metrics` are those of a process that the engine measures, else what `reported(id)` has of the worker itself.
    """
    name, id = payload.get("name"), payload.get("worker_id") or payload.get("id")
    key, value = ("id", id) if id else ("name", name)
    matches = [(row, peer) for row, peer in _workers(router, rows) if row[key] == value]
    if not matches:
        raise InvocationError(ErrorCode.NOT_FOUND, f"worker {id or name} not found")
    row, peer = matches[0]
    functions = [summary(function) for function in peer.functions] if peer else []
    bindings = [binding_row(binding) for binding in router.bindings if peer in binding.binders]
    types = [type_summary(type) for type in router.bindings.types.values() if type.provider is peer]
    metrics = row.get("metrics") or reported(row["id"] or "")
    latest = {**metrics, "runtime": row["runtime"]} if metrics else None
    worker = {**row, "internal": False, "latest_metrics": latest}
    return {"worker": worker, "functions": functions, "trigger_types": types, "registered_triggers": bindings}


def _workers(router: Router, rows: Iterable[Mapping[str, Any]]) -> list[tuple[Row, Peer | None]]:
    peers = [peer for peer in router.peer_table.peers.values() if peer.kind == "worker"]
    by_run = {(peer.owner.name, peer.instance, peer.generation): peer for peer in peers if peer.owner.is_supervised}
    workers: list[tuple[Row, Peer | None]] = []
    for supervised in rows:
        peer = by_run.get((supervised["name"], supervised["instance"], supervised["generation"]))
        row = _peer_row(peer)
        runtime = row["runtime"] or supervised.get("runtime")  # the worker's own word, else a guess from its command
        workers.append(({**row, **supervised, "runtime": runtime}, peer))
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
