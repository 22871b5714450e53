"""The worker's configuration, checked: the keys of the public contract, and further ones of this worker. Pure.

The public worker keeps records for an hour, in memory. The defaults here are larger: everything is on disk, and bounded
by bytes as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stdlib_workers.observability.config.alert_rules import AlertRule, rule_from
from stdlib_workers.observability.config.sampling import Sampling, ratio_from, sampling_from
from stdlib_workers.observability.records.trace_tree import Collapse
from stdlib_workers.values import OptionError, check_config, check_names, in_memory, integer

NAME = "observability"
MEGABYTE = 1024 * 1024
DAY = 86_400
# The customary ports: Prometheus scrapes one, OTLP over HTTP goes to the other.
METRICS_PORT = 9464
OTLP_PORT = 4318
# A larger payload is not kept for `iii replay`.
PAYLOAD_BYTES = 8192


@dataclass(frozen=True)
class Limits:
    """What is kept at most: spans, logs and metrics by count and by age in seconds, the whole file by bytes.

    `pending_seconds`: the age of a snapshot of a span that has not ended. The recent spans and logs are all there; of
    older ones, the history takes a few a second.
    """

    spans: int = 1_000_000
    span_seconds: int = 30 * DAY
    pending_seconds: int = 3600
    logs: int = 100_000
    log_seconds: int = 7 * DAY
    metrics: int = 10_000
    metric_seconds: int = 3600
    bytes: int = 256 * MEGABYTE
    recent_spans: int = 10_000
    recent_logs: int = 10_000


@dataclass(frozen=True)
class ListenerOptions:
    """Where an HTTP server listens. `is_named`: the project chose the port, so no other one is tried."""

    enabled: bool
    host: str
    port: int
    is_named: bool = False


@dataclass(frozen=True)
class Export:
    """What is sent to a collector, and how often. `batch`: logs of one request; `interval` in seconds."""

    endpoint: str = "http://localhost:4318"
    spans: bool = False
    metrics: bool = False
    logs: bool = False
    batch: int = 100
    interval: float = 5.0


@dataclass(frozen=True)
class Options:
    """The whole configuration; `limits`, `sampling` and so on by subject."""

    enabled: bool = True
    in_memory: bool = False
    resource: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    sampling: Sampling = field(default_factory=Sampling)
    live: bool = True
    payload_bytes: int = PAYLOAD_BYTES
    logs_enabled: bool = True
    logs_ratio: float = 1.0
    logs_console: bool = True
    metrics_enabled: bool = True
    export: Export = field(default_factory=Export)
    alerts: tuple[AlertRule, ...] = ()
    allow_private: bool = False
    collapse: tuple[Collapse, ...] = ()
    streams: bool = True
    prometheus: ListenerOptions = field(default_factory=lambda: ListenerOptions(True, "127.0.0.1", METRICS_PORT))
    otlp_listener: ListenerOptions = field(default_factory=lambda: ListenerOptions(False, "127.0.0.1", OTLP_PORT))


def options_from(config: Mapping[str, Any], environ: Mapping[str, str]) -> Options:
    """Return the options in `[workers.observability.config]`. OptionError for a key or a value that does not fit.

    `OTEL_*` variables of the environment stand in for keys that the configuration does not have.
    """
    check_config(NAME, config)
    settings: dict[str, Any] = {key: environ[name] for name, key in _VARIABLES.items() if environ.get(name)}
    settings |= {key: _number(environ[name], name) for name, key in _NUMBERS.items() if environ.get(name)}
    settings |= {key: environ[name].lower() in ("1", "true") for name, key in _FLAGS.items() if environ.get(name)}
    settings |= config
    return Options(
        enabled=_flag(settings, "enabled", default=True),
        in_memory=in_memory(settings),
        resource=_resource(settings, environ),
        limits=_limits(settings),
        sampling=sampling_from(settings),
        live=_flag(settings, "live_spans", default=True),
        payload_bytes=_whole(settings, "payload_bytes", PAYLOAD_BYTES, 0, 64 * 1024),
        logs_enabled=_flag(settings, "logs_enabled", default=True),
        logs_ratio=ratio_from(settings.get("logs_sampling_ratio", 1.0), "logs_sampling_ratio"),
        logs_console=_flag(settings, "logs_console_output", default=True),
        metrics_enabled=_flag(settings, "metrics_enabled", default=True),
        export=_export(settings),
        alerts=_alerts(settings.get("alerts")),
        allow_private=_flag(settings, "webhook_allow_private", default=False),
        collapse=_collapse(settings.get("collapse_spans")),
        streams=_flag(settings, "streams", default=True),
        prometheus=_listener(settings, "prometheus", METRICS_PORT, enabled=True),
        otlp_listener=_listener(settings, "otlp_listener", OTLP_PORT, enabled=False),
    )


_VARIABLES = {
    "OTEL_SERVICE_NAME": "service_name",
    "SERVICE_VERSION": "service_version",
    "SERVICE_NAMESPACE": "service_namespace",
    "OTEL_EXPORTER_TYPE": "exporter",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "endpoint",
    "OTEL_LOGS_EXPORTER": "logs_exporter",
}
_NUMBERS = {"OTEL_TRACES_SAMPLER_ARG": "sampling_ratio", "OTEL_MEMORY_MAX_SPANS": "memory_max_spans"}
_FLAGS = {"OTEL_ENABLED": "enabled", "OTEL_LIVE_SPANS": "live_spans", "OTEL_METRICS_ENABLED": "metrics_enabled"}


def _number(text: str, name: str) -> float:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise OptionError(f"{NAME}: {name} must be a number, got {text!r}") from None


def _flag(config: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise OptionError(f"{NAME}: {name} must be true or false, got {value!r}")
    return value


def _whole(config: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = integer(config, name, NAME, least, most)
    return default if value is None else value


def _resource(config: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    fields = {
        "service.name": config.get("service_name", "iii"),
        "service.version": config.get("service_version"),
        "service.namespace": config.get("service_namespace"),
        "deployment.environment": environ.get("DEPLOYMENT_ENVIRONMENT"),
    }
    for name, value in fields.items():
        if not isinstance(value, str | None):
            raise OptionError(f"{NAME}: {name.replace('.', '_')} must be a string, got {value!r}")
    return {name: value for name, value in fields.items() if value}


def _limits(config: Mapping[str, Any]) -> Limits:
    default = Limits()
    disk = config.get("trace_storage", {})
    if not isinstance(disk, dict):
        raise OptionError(f"{NAME}: trace_storage must be a table, got {disk!r}")
    most = 2**53
    return Limits(
        _whole(config, "memory_max_spans", default.spans, 1, most),
        _whole(disk, "retention_seconds", default.span_seconds, 1, most),
        _whole(disk, "pending_max_age_seconds", default.pending_seconds, 1, most),
        _whole(config, "logs_max_count", default.logs, 1, most),
        _whole(config, "logs_retention_seconds", default.log_seconds, 1, most),
        _whole(config, "metrics_max_count", default.metrics, 1, most),
        _whole(config, "metrics_retention_seconds", default.metric_seconds, 1, most),
        _whole(disk, "max_disk_bytes", default.bytes, 16 * MEGABYTE, most),
        _whole(disk, "recent_spans", default.recent_spans, 1, most),
        _whole(config, "logs_recent_count", default.recent_logs, 1, most),
    )


def _export(config: Mapping[str, Any]) -> Export:
    is_exported = {}
    for name in ("exporter", "metrics_exporter", "logs_exporter"):
        exporter = config.get(name, "memory")
        if exporter not in ("memory", "otlp", "both"):
            raise OptionError(f"{NAME}: {name} must be memory, otlp or both, got {exporter!r}")
        is_exported[name] = exporter != "memory"
    endpoint = config.get("endpoint", Export.endpoint)
    if not isinstance(endpoint, str) or not endpoint.startswith(("http://", "https://")):
        raise OptionError(f"{NAME}: endpoint must be an http or https address, got {endpoint!r}")
    return Export(
        # The public worker speaks gRPC on 4317; this one speaks HTTP, which every collector takes beside it.
        endpoint.rstrip("/").replace(":4317", f":{OTLP_PORT}"),
        is_exported["exporter"],
        is_exported["metrics_exporter"],
        is_exported["logs_exporter"],
        _whole(config, "logs_batch_size", Export.batch, 1, 10_000),
        _whole(config, "logs_flush_interval_ms", int(Export.interval * 1000), 100, 3_600_000) / 1000,
    )


def _alerts(tables: Any) -> tuple[AlertRule, ...]:
    if not isinstance(tables, list | None):
        raise OptionError(f"{NAME}: alerts must be a list of tables, got {tables!r}")
    rules = tuple(rule_from(table) for table in tables or ())
    names = [rule.name for rule in rules]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise OptionError(f"{NAME}: two alerts are called {duplicate!r}")
    return rules


def _collapse(tables: Any) -> tuple[Collapse, ...]:
    is_list = isinstance(tables, list | None)
    if not is_list or not all(isinstance(table, dict) and isinstance(table.get("name"), str) for table in tables or ()):
        raise OptionError(f"{NAME}: collapse_spans must be a list of tables with a name, got {tables!r}")
    return tuple(Collapse(table["name"], table.get("service")) for table in tables or ())


def _listener(config: Mapping[str, Any], name: str, port: int, *, enabled: bool) -> ListenerOptions:
    fields = config.get(name, {"enabled": enabled})
    if isinstance(fields, bool):
        fields = {"enabled": fields}
    if not isinstance(fields, dict):
        raise OptionError(f"{NAME}: {name} must be a table or true or false, got {fields!r}")
    check_names(fields, ("enabled", "host", "port"), f"{NAME}: {name}")
    host = fields.get("host", "127.0.0.1")
    if host not in ("127.0.0.1", "localhost", "::1"):
        # The servers do not authenticate: what they tell and take stays on this machine.
        raise OptionError(f"{NAME}: {name} listens on loopback only, got host {host!r}; put a proxy in front of it")
    port = _whole(fields, "port", port, 0, 65_535)
    return ListenerOptions(_flag(fields, "enabled", default=True), host, port, "port" in fields)
