"""`[[engine.listeners]]` of iii.toml: further WebSocket listeners, each with rules of its own.

```toml
[[engine.listeners]]
port = 49135
host = "127.0.0.1"
origins = ["https://app.example"]
middleware_function_id = "gate::middleware"
rbac = { auth_function_id = "gate::auth", expose_functions = ['match("api::*")'] }
```
"""

from __future__ import annotations

from typing import Any

from iii.engine.config.spec import ListenerSpec
from iii.engine.config.toml_document import Document
from iii.engine.config.toml_positions import KeyPath
from iii.engine.security.rbac import Rules, filter_of

_KEYS = ("port", "host", "origins", "middleware_function_id", "rbac")
_FUNCTIONS = (
    "auth_function_id",
    "on_function_registration_function_id",
    "on_trigger_registration_function_id",
    "on_trigger_type_registration_function_id",
)


def listeners_of(document: Document, written: Any) -> tuple[ListenerSpec, ...]:
    """Read the listeners. Raises `ProjectError` at the key that is wrong."""
    path: KeyPath = ("engine", "listeners")
    if not isinstance(written, list):
        raise document.error(path, "listeners are tables", "write [[engine.listeners]]")
    return tuple(_listener(document, (*path, index), table) for index, table in enumerate(written))


def _listener(document: Document, path: KeyPath, written: Any) -> ListenerSpec:
    table = _table(document, path, written, _KEYS)
    port = table.get("port")
    if type(port) is not int or not 0 <= port <= 65535:
        raise document.error((*path, "port"), "port must be an integer from 0 to 65535")
    host = _text(document, path, table, "host") or "127.0.0.1"
    origins = table.get("origins", [])
    if not isinstance(origins, list) or not all(isinstance(origin, str) for origin in origins):
        raise document.error((*path, "origins"), "origins must be a list of strings")
    return ListenerSpec(
        address=f"{host}:{port}",
        line=document.line((*path, "port")),
        origins=tuple(origins),
        middleware_function_id=_text(document, path, table, "middleware_function_id"),
        rules=_rules(document, (*path, "rbac"), table["rbac"]) if "rbac" in table else None,
    )


def _rules(document: Document, path: KeyPath, written: Any) -> Rules:
    table = _table(document, path, written, (*_FUNCTIONS, "expose_functions"))
    exposed = table.get("expose_functions", [])
    if not isinstance(exposed, list):
        raise document.error((*path, "expose_functions"), "expose_functions must be a list")
    filters = []
    for index, entry in enumerate(exposed):
        try:
            filters.append(filter_of(entry))
        except ValueError as error:
            raise document.error((*path, "expose_functions", index), f"expose_functions: {error}") from None
    functions = {name: _text(document, path, table, name) for name in _FUNCTIONS}
    return Rules(**functions, expose_functions=tuple(filters))


def _table(document: Document, path: KeyPath, written: Any, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(written, dict):
        raise document.error(path, f"{path[-1]} must be a table")
    for name in written:
        if name not in known:
            raise document.error((*path, name), f"unknown key `{name}`", f"known keys are {', '.join(known)}")
    return written


def _text(document: Document, path: KeyPath, table: dict[str, Any], name: str) -> str | None:
    value = table.get(name)
    if value is not None and not (isinstance(value, str) and value):
        raise document.error((*path, name), f"{name} must be a string")
    return None if value is None else document.interpolated(value, (*path, name))
