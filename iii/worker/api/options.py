"""What a script says when it registers its worker.

Plain classes, not dataclasses: the `dataclasses` module would be the most expensive import of the SDK.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
    """Options of `register_worker`.

    `invocation_timeout_ms` is the deadline of calls that name none; None leaves it to the engine. The fields that
    only matter over a network (`reconnection_config`, `headers`) and to telemetry exporters (`otel`) are carried.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the public SDK's fields, always given by name
        self,
        worker_name: str | None = None,
        worker_description: str | None = None,
        namespace: str | None = None,
        enable_metrics_reporting: bool = True,
        invocation_timeout_ms: int | None = None,
        reconnection_config: Any = None,
        otel: Any = None,
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
    """Return the headers of a handshake: those of the options, and `III_TOKEN` as bearer token unless one is there."""
    headers = dict(options.headers or {})
    token = os.environ.get("III_TOKEN", "").strip()
    if token and "authorization" not in {name.lower() for name in headers}:
        headers["Authorization"] = f"Bearer {token}"
    return headers
