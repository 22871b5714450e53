"""Settings of a standard worker that can be changed while it runs, through the `configuration` worker.

The keys that its config.schema.json marks with `x-live`. What was changed last holds: a value set through
`configuration::set`, or the `config` table in iii.toml when that was edited since. Without a configuration worker
nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock, Timer
from typing import Any, Generic, TypeVar

from iii import InvocationError, Logger, Worker
from iii.config_schema import load_schema
from iii.declarations import load_declarations

T = TypeVar("T")

# With these the configuration worker is not there; it calls as soon as it is.
_ABSENT = frozenset({"function_not_found", "worker_unavailable", "invocation_stopped"})
# A configuration worker that does not answer must not keep another one from its start.
CALL_MS = 3_000
# Seconds until it is asked once more (public contract).
RETRY_SECONDS = 5.0


class LiveConfig(Generic[T]):
    """The live settings of one worker. `parse` reads a whole config table (ValueError), `apply` takes what it made.

    Everything here blocks: call it on a thread that no loop needs.
    """

    def __init__(
        self,
        worker: Worker,
        name: str,
        config: Mapping[str, Any],
        parse: Callable[[Any], T],
        apply: Callable[[T], object],
    ) -> None:
        self._worker = worker
        self._name = name
        self._schema = load_schema(Path(__file__).parents[1], name) or {}
        self._live = {key for key, field in self._schema["properties"].items() if field.get("x-live")}
        self._fixed = {key: value for key, value in config.items() if key not in self._live}
        self._seed = {key: value for key, value in config.items() if key in self._live}
        self._parse = parse
        self._apply = apply
        self._applied: Any = self._seed
        self._is_bound = False
        self._lock = Lock()
        self._log = Logger(service_name=name)
        self.function_id = f"{name}::on-config-change"

    def start(self) -> None:
        """Register the function that the configuration worker calls, and take the stored settings.

        For the time before the worker is ready: nothing is served yet by settings that hold no more.
        """
        declared = load_declarations(Path(__file__).parent).functions[self.function_id]
        self._worker.register_function(
            self.function_id, self.on_change, metadata={"internal": True, "live_config": True}, **declared
        )
        self.follow()

    def on_change(self, payload: Any) -> dict[str, Any]:
        """Say whether the value in `check` can hold, or read the stored one again."""
        if not isinstance(payload, dict) or "check" not in payload:
            self.follow()
            return {"ok": True}
        try:
            self._options_of(payload["check"])
        except InvocationError as error:
            return {"ok": False, "refused": {"code": error.code, "message": error.message}}
        return {"ok": True}

    def follow(self, *, may_retry: bool = True) -> None:
        """Take the stored settings. Without a configuration worker, or with a broken value, everything stays.

        One that does not answer in time is asked once more, after a while and on another thread.
        """
        with self._lock:
            try:
                # Asked first: the engine takes its time to say of a missing function what else it might be.
                if not self._call("engine::functions::list", {"prefix": "configuration::get"})["functions"]:
                    return
                self._offer()
                value = self._call("configuration::get", {"id": self._name})["value"] or {}
                if value != self._applied:
                    self._apply(self._options_of(value))
                    self._applied = value
                    self._log.info(f"the settings {', '.join(sorted(value)) or 'of iii.toml'} hold from now on")
            except InvocationError as error:
                if error.code == "TIMEOUT" and may_retry:
                    retry = Timer(RETRY_SECONDS, self.follow, kwargs={"may_retry": False})
                    retry.daemon = True
                    retry.start()
                elif error.code not in _ABSENT:
                    self._log.warn(f"the settings stay as they are: {error.message}")

    def _offer(self) -> None:
        """Register the settings, those of iii.toml as their value if that has changed since they were registered."""
        entry = {
            "id": self._name,
            "name": self._name,
            "description": f"Settings of the {self._name} worker that hold without a restart.",
            "schema": self._schema,
            "metadata": {"iii.toml": self._seed},
        }
        try:
            known = self._call("configuration::schema", {"id": self._name})
        except InvocationError as error:
            if error.code != "NOT_FOUND":
                raise
            known = {}
        if known != entry:
            is_edited = known.get("metadata") != entry["metadata"]
            self._call("configuration::register", {**entry, "initial_value": self._seed} if is_edited else entry)
        if not self._is_bound:
            self._is_bound = True
            self._worker.register_trigger(
                {
                    "type": "configuration",
                    "function_id": self.function_id,
                    "config": {"configuration_id": self._name, "event_types": ["configuration:updated"]},
                    "metadata": {"checks": True},
                }
            )

    def _options_of(self, value: Any) -> T:
        if not isinstance(value, dict):
            raise InvocationError("SCHEMA_INVALID", f"the settings of {self._name} are an object")
        fixed = sorted(key for key in value if key not in self._live and value[key] != self._fixed.get(key))
        known = [key for key in fixed if key in self._schema["properties"]]
        if known:
            text = (
                f"{', '.join(known)} of {self._name} cannot change while it runs: set it in iii.toml, "
                f"and `iii worker restart {self._name}`"
            )
            raise InvocationError("RESTART_REQUIRED", text)
        try:
            return self._parse({**self._fixed, **value})
        except ValueError as error:
            raise InvocationError("SCHEMA_INVALID", str(error)) from None

    def _call(self, function_id: str, payload: Any) -> Any:
        return self._worker.trigger({"function_id": function_id, "payload": payload, "timeout_ms": CALL_MS})
