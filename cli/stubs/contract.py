"""What the functions of a project take and give: read from a running engine, or from the file kept beside the stubs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cli.client.connection import Connection
from cli.client.errors import UsageError

# Ids in one `engine::functions::info` (public contract).
BATCH = 32
DEFAULT_NAMESPACE = "default"
FORMAT = 1


@dataclass(frozen=True)
class Function:
    """One function: its id, and the JSON Schemas of its payload and result, None where it has published none."""

    id: str
    namespace: str
    description: str
    request: Any
    response: Any

    @property
    def name(self) -> str:
        """The id, with the namespace where that is not the default one."""
        return self.id if self.namespace == DEFAULT_NAMESPACE else f"{self.id} ({self.namespace})"


def read_contract(connection: Connection) -> list[Function]:
    """Return all functions of the project, sorted. Raises UsageError while a worker cannot say what it has."""
    workers = connection.look_up("engine::workers::list")["workers"]
    absent = {str(row["name"]): str(row["state"]) for row in workers if row.get("state") not in (None, "ready")}
    if absent:
        listed = ", ".join(f"{name} is {state}" for name, state in absent.items())
        raise UsageError(f"functions would be missing from the stubs: {listed}", "see `iii ps`, then try again")
    rows = connection.look_up("engine::functions::list")["functions"]
    ids: dict[str, list[str]] = {}
    for row in rows:
        ids.setdefault(str(row.get("namespace") or DEFAULT_NAMESPACE), []).append(str(row["function_id"]))
    details: list[dict[str, Any]] = []
    for namespace, names in ids.items():
        for start in range(0, len(names), BATCH):
            request = {"function_ids": names[start : start + BATCH], "namespace": namespace}
            details += connection.look_up("engine::functions::info", request)["functions"]
    # A function that has gone between the two questions has only an error.
    return contract_from(row for row in details if "error" not in row)


def contract_from(rows: Iterable[dict[str, Any]]) -> list[Function]:
    """Return the functions that rows as of `engine::functions::info` describe, sorted by namespace and id. Pure."""
    functions = (
        Function(
            str(row["function_id"]),
            str(row.get("namespace") or DEFAULT_NAMESPACE),
            str(row.get("description") or "").strip(),
            row.get("request_schema"),
            row.get("response_schema"),
        )
        for row in rows
    )
    return sorted(
        functions, key=lambda function: (function.namespace != DEFAULT_NAMESPACE, function.namespace, function.id)
    )


def to_text(functions: Iterable[Function]) -> str:
    """Return the contract as the text of a file: the same for the same functions."""
    rows = []
    for function in functions:
        row = {"function_id": function.id, "namespace": function.namespace, "description": function.description}
        row |= {"request_schema": function.request, "response_schema": function.response}
        rows.append({name: value for name, value in row.items() if value is not None})
    return json.dumps({"format": FORMAT, "functions": rows}, indent=1) + "\n"


def from_text(text: str, file: str) -> list[Function]:
    """Return the functions of such a text. Raises UsageError, which names `file`, for any other."""
    try:
        value = json.loads(text)
        if value["format"] == FORMAT:
            return contract_from(value["functions"])
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise UsageError(f"{file} is not what `iii types` has written", "run `iii types` to write it anew")
