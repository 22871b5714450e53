"""The worker's configuration: the public one's keys, checked, and ours beside them. Pure.

Our defaults are larger where theirs forget within the hour: everything is on disk, and bounded by bytes as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stdlib_workers.observability.config.alert_rules import Rule, rule_from
from stdlib_workers.observability.config.sampling import Sampling, ratio_from, sampling_from
from stdlib_workers.observability.records.trace_tree import Collapse
from stdlib_workers.values import OptionError, check_names, in_memory, integer

NAME = "observability"
MEGABYTE = 1024 * 1024
DAY = 86_400
# Where Prometheus looks by custom, and where OTLP over HTTP is sent by custom.
METRICS_PORT = 9464
OTLP_PORT = 4318
# What a payload may have to be kept for `iii replay`.
PAYLOAD_BYTES = 8192

_KEYS = (
    *("enabled", "service_name", "service_version", "service_namespace", "exporter", "endpoint", "sampling_ratio"),
    *("sampling", "memory_max_spans", "live_spans", "trace_storage", "metrics_enabled", "metrics_exporter"),
    *("metrics_retention_seconds", "metrics_max_count", "logs_enabled", "logs_exporter", "logs_max_count"),
    *("logs_retention_seconds", "logs_batch_size", "logs_flush_interval_ms", "logs_sampling_ratio"),
    *("logs_console_output", "alerts", "level", "format", "collapse_spans", "store_method", "adapter"),
    *("payload_bytes", "prometheus", "otlp_listener", "webhook_allow_private", "streams"),
)
_STORAGE_KEYS = (
    *("enabled", "directory", "max_disk_bytes", "retention_seconds", "memory_max_bytes"),
    *("memory_low_watermark_ratio", "pending_max_age_seconds"),
)
_EXPORTERS = ("memory", "otlp", "both")


@dataclass(frozen=True)
class Limits:
    """What is kept at most: spans, logs and metrics by count and by age in seconds, the whole file by bytes."""

    spans: int = 1_000_000
    span_seconds: int = 30 * DAY
    pending_seconds: int = 3600
    logs: int = 100_000
    log_seconds: int = 7 * DAY
    metrics: int = 10_000
    metric_seconds: int = 3600
    bytes: int = 1024 * MEGABYTE


@dataclass(frozen=True)
class Listener:
    """Where something is listened for. `is_named`: the project chose the port, so no other will do."""

    enabled: bool
    host: str
    port: int
    is_named: bool = False


@dataclass(frozen=True)
class Export:
    """What is sent to a collector, and how often; interval in seconds."""

    endpoint: str = "http://localhost:4318"
    spans: bool = False
    metrics: bool = False
    logs: bool = False
    batch: int = 100
    interval: float = 5.0


@dataclass(frozen=True)
class Options:
    """What the worker needs to know."""

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
    alerts: tuple[Rule, ...] = ()
    allow_private: bool = False
    collapse: tuple[Collapse, ...] = ()
    streams: bool = True
    prometheus: Listener = field(default_factory=lambda: Listener(True, "127.0.0.1", METRICS_PORT))
    otlp_listener: Listener = field(default_factory=lambda: Listener(False, "127.0.0.1", OTLP_PORT))


def options_from(config: Mapping[str, Any], environ: Mapping[str, str]) -> Options:
    """Return the options in `[workers.observability.config]`. OptionError for a key or a value that does not fit.

    `OTEL_*` variables of the environment count where the configuration says nothing.
    """
    check_names(config, _KEYS, NAME)
    found = _with_environment(config, environ)
    exporters = {kind: _exporter(found, f"{kind}exporter") for kind in ("", "metrics_", "logs_")}
    return Options(
        enabled=_flag(found, "enabled", default=True),
        in_memory=in_memory({name: found[name] for name in ("store_method", "adapter") if name in found}, NAME),
        resource=_resource(found, environ),
        limits=_limits(found),
        sampling=sampling_from(found),
        live=_flag(found, "live_spans", default=True),
        payload_bytes=_whole(found, "payload_bytes", PAYLOAD_BYTES, 0, 64 * 1024),
        logs_enabled=_flag(found, "logs_enabled", default=True),
        logs_ratio=ratio_from(found.get("logs_sampling_ratio", 1.0), "logs_sampling_ratio"),
        logs_console=_flag(found, "logs_console_output", default=True),
        metrics_enabled=_flag(found, "metrics_enabled", default=True),
        export=_export(found, exporters),
        alerts=_alerts(found.get("alerts")),
        allow_private=_flag(found, "webhook_allow_private", default=False),
        collapse=_collapse(found.get("collapse_spans")),
        streams=_flag(found, "streams", default=True),
        prometheus=_listener(found, "prometheus", METRICS_PORT, enabled=True),
        otlp_listener=_listener(found, "otlp_listener", OTLP_PORT, enabled=False),
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


def _with_environment(config: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {key: environ[name] for name, key in _VARIABLES.items() if environ.get(name)}
    found |= {key: _parsed(environ[name], name) for name, key in _NUMBERS.items() if environ.get(name)}
    found |= {key: environ[name].lower() in ("1", "true") for name, key in _FLAGS.items() if environ.get(name)}
    return {**found, **config}


def _parsed(text: str, name: str) -> float:
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
    found = integer(config, name, NAME, least, most)
    return default if found is None else found


def _exporter(config: Mapping[str, Any], name: str) -> str:
    value = config.get(name, "memory")
    if value not in _EXPORTERS:
        raise OptionError(f"{NAME}: {name} must be memory, otlp or both, got {value!r}")
    return str(value)


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
    usual = Limits()
    disk = config.get("trace_storage", {})
    if not isinstance(disk, dict):
        raise OptionError(f"{NAME}: trace_storage must be a table, got {disk!r}")
    check_names(disk, _STORAGE_KEYS, f"{NAME}: trace_storage")
    most = 2**53
    return Limits(
        _whole(config, "memory_max_spans", usual.spans, 1, most),
        _whole(disk, "retention_seconds", usual.span_seconds, 1, most),
        _whole(disk, "pending_max_age_seconds", usual.pending_seconds, 1, most),
        _whole(config, "logs_max_count", usual.logs, 1, most),
        _whole(config, "logs_retention_seconds", usual.log_seconds, 1, most),
        _whole(config, "metrics_max_count", usual.metrics, 1, most),
        _whole(config, "metrics_retention_seconds", usual.metric_seconds, 1, most),
        _whole(disk, "max_disk_bytes", usual.bytes, 64 * MEGABYTE, most),
    )


def _export(config: Mapping[str, Any], exporters: Mapping[str, str]) -> Export:
    endpoint = config.get("endpoint", Export.endpoint)
    if not isinstance(endpoint, str) or not endpoint.startswith(("http://", "https://")):
        raise OptionError(f"{NAME}: endpoint must be an http or https address, got {endpoint!r}")
    return Export(
        # Theirs speak gRPC on 4317; ours speaks HTTP, which every collector takes beside it.
        endpoint.rstrip("/").replace(":4317", f":{OTLP_PORT}"),
        exporters[""] != "memory",
        exporters["metrics_"] != "memory",
        exporters["logs_"] != "memory",
        _whole(config, "logs_batch_size", Export.batch, 1, 10_000),
        _whole(config, "logs_flush_interval_ms", int(Export.interval * 1000), 100, 3_600_000) / 1000,
    )


def _alerts(listed: Any) -> tuple[Rule, ...]:
    if not isinstance(listed, list | None):
        raise OptionError(f"{NAME}: alerts must be a list of tables, got {listed!r}")
    rules = tuple(rule_from(fields) for fields in listed or ())
    names = [rule.name for rule in rules]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"{NAME}: two alerts are called {twice!r}")
    return rules


def _collapse(listed: Any) -> tuple[Collapse, ...]:
    fits = isinstance(listed, list | None) and all(isinstance(rule, dict) for rule in listed or ())
    if not fits or not all(isinstance(rule.get("name"), str) for rule in listed or ()):
        raise OptionError(f"{NAME}: collapse_spans must be a list of tables with a name, got {listed!r}")
    return tuple(Collapse(rule["name"], rule.get("service")) for rule in listed or ())


def _listener(config: Mapping[str, Any], name: str, port: int, *, enabled: bool) -> Listener:
    fields = config.get(name, {"enabled": enabled})
    if isinstance(fields, bool):
        fields = {"enabled": fields}
    if not isinstance(fields, dict):
        raise OptionError(f"{NAME}: {name} must be a table or true or false, got {fields!r}")
    check_names(fields, ("enabled", "host", "port"), f"{NAME}: {name}")
    host = fields.get("host", "127.0.0.1")
    if host not in ("127.0.0.1", "localhost", "::1"):
        # Nothing here asks who is there: what it tells and takes stays on this machine.
        raise OptionError(f"{NAME}: {name} listens on loopback only, got host {host!r}; put a proxy in front of it")
    found = _whole(fields, "port", port, 0, 65_535)
    return Listener(_flag(fields, "enabled", default=True), host, found, "port" in fields)
