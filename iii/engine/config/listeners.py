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
from iii.engine.config.toml_document import Place
from iii.engine.security.rbac import Rules, filter_of

_KEYS = ("port", "host", "origins", "middleware_function_id", "rbac")
_FUNCTIONS = (
    "auth_function_id",
    "on_function_registration_function_id",
    "on_trigger_registration_function_id",
    "on_trigger_type_registration_function_id",
)


def listeners_of(written: Any, at: Place) -> tuple[ListenerSpec, ...]:
    """Read the listeners. Raises `ProjectError` at the key that is wrong."""
    if not isinstance(written, list):
        raise at.error("listeners are tables", "write [[engine.listeners]]")
    return tuple(_listener(table, at.inside(index)) for index, table in enumerate(written))


def _listener(written: Any, at: Place) -> ListenerSpec:
    table = _table(written, at, _KEYS)
    port = table.get("port")
    if type(port) is not int or not 0 <= port <= 65535:
        raise at.inside("port").error("port must be an integer from 0 to 65535")
    host = _text(table, at, "host") or "127.0.0.1"
    origins = table.get("origins", [])
    if not isinstance(origins, list) or not all(isinstance(origin, str) for origin in origins):
        raise at.inside("origins").error("origins must be a list of strings")
    return ListenerSpec(
        address=f"{host}:{port}",
        line=at.inside("port").line,
        origins=tuple(origins),
        middleware_function_id=_text(table, at, "middleware_function_id"),
        rules=_rules(table["rbac"], at.inside("rbac")) if "rbac" in table else None,
    )


def _rules(written: Any, at: Place) -> Rules:
    table = _table(written, at, (*_FUNCTIONS, "expose_functions"))
    exposed = table.get("expose_functions", [])
    if not isinstance(exposed, list):
        raise at.inside("expose_functions").error("expose_functions must be a list")
    filters = []
    for index, entry in enumerate(exposed):
        try:
            filters.append(filter_of(entry))
        except ValueError as error:
            raise at.inside("expose_functions", index).error(f"expose_functions: {error}") from None
    return Rules(**{name: _text(table, at, name) for name in _FUNCTIONS}, expose_functions=tuple(filters))


def _table(written: Any, at: Place, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(written, dict):
        raise at.error(f"{at.name} must be a table")
    for name in written:
        if name not in known:
            raise at.inside(name).error(f"unknown key `{name}`", f"known keys are {', '.join(known)}")
    return written


def _text(table: dict[str, Any], at: Place, name: str) -> str | None:
    value = table.get(name)
    if value is not None and not (isinstance(value, str) and value):
        raise at.inside(name).error(f"{name} must be a string")
    return None if value is None else at.inside(name).interpolated(value)
