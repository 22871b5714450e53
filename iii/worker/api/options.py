"""What a script says when it registers its worker, and what it may say of a function.

Plain classes, not dataclasses: the `dataclasses` module would be the most expensive import of the SDK. What is a
TypedDict for type checkers is a plain `dict` when the script runs, for the same reason.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol, TypedDict

    class FunctionOptions(TypedDict, total=False):
        """The keyword arguments of `register_function` and `function`."""

        description: str | None
        metadata: dict[str, Any] | None
        request_format: dict[str, Any] | None
        response_format: dict[str, Any] | None

    class ReconnectionConfig(Protocol):
        """When a lost WebSocket is tried again: the fields of the public SDK's class of this name."""

        @property
        def initial_delay_ms(self) -> float: ...
        @property
        def max_delay_ms(self) -> float: ...
        @property
        def backoff_multiplier(self) -> float: ...
        @property
        def jitter_factor(self) -> float: ...
        @property
        def max_retries(self) -> int: ...
else:
    FunctionOptions = dict

DEFAULT_ENGINE_URL = "ws://127.0.0.1:49134"


class TelemetryOptions:
    """Facts about the program that the engine shows: language, project, framework."""

    def __init__(
        self, language: str | None = None, project_name: str | None = None, framework: str | None = None
    ) -> None:
        self.language = language
        self.project_name = project_name
        self.framework = framework


class InitOptions:
    """Options of `register_worker`: `InitOptions(worker_name="shop", invocation_timeout_ms=5_000)`.

    Without `worker_name` the worker has the name that iii.toml gives it, or `host:pid`. `invocation_timeout_ms` is the
    deadline of calls that name none; None leaves it to the engine. `headers` go with the WebSocket handshake and
    `reconnection_config` (an object with `initial_delay_ms`, `max_delay_ms`, `backoff_multiplier`, `jitter_factor`,
    `max_retries`, as the public SDK's) says when a lost WebSocket is tried again. `enable_metrics_reporting` and
    `otel` are taken for the public SDK's sake and change nothing.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the public SDK's fields, always given by name
        self,
        worker_name: str | None = None,
        worker_description: str | None = None,
        namespace: str | None = None,
        enable_metrics_reporting: bool = True,
        invocation_timeout_ms: float | None = None,
        reconnection_config: ReconnectionConfig | None = None,
        otel: object = None,
        headers: dict[str, str] | None = None,
        telemetry: TelemetryOptions | None = None,
    ) -> None:
        self.worker_name = worker_name
        self.worker_description = worker_description
        self.namespace = namespace
        self.enable_metrics_reporting = enable_metrics_reporting
        self.invocation_timeout_ms = invocation_timeout_ms
        self.reconnection_config = reconnection_config
        self.otel = otel
        self.headers = headers
        self.telemetry = telemetry


def headers_from(options: InitOptions) -> dict[str, str]:
    """Return the headers of a handshake: the options' headers, and `III_TOKEN` as bearer token if they have none."""
    headers = dict(options.headers or {})
    token = os.environ.get("III_TOKEN", "").strip()
    if token and "authorization" not in {name.lower() for name in headers}:
        headers["Authorization"] = f"Bearer {token}"
    return headers
