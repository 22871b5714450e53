"""The configuration: defaults, the public keys, the environment, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from stdlib_workers.observability.config.options import Limits, ListenerOptions, Options, options_from
from stdlib_workers.observability.config.sampling import Sampling, SamplingRule
from stdlib_workers.observability.records.trace_tree import Collapse
from stdlib_workers.values import OptionError


def test_nothing_configured() -> None:
    found = options_from({}, {})
    assert found == Options(resource={"service.name": "iii"})
    assert found.sampling == Sampling(1.0, (), True, 100)
    assert (found.prometheus, found.otlp_listener) == (
        ListenerOptions(True, "127.0.0.1", 9464),
        ListenerOptions(False, "127.0.0.1", 4318),
    )
    assert (found.export.spans, found.export.metrics, found.export.logs) == (False, False, False)


def test_the_public_keys() -> None:
    found = options_from(
        {
            "enabled": True,
            "service_name": "shop",
            "service_version": "2",
            "service_namespace": "eu",
            "exporter": "otlp",
            "endpoint": "http://collector:4317/",
            "memory_max_spans": 5,
            "live_spans": False,
            "trace_storage": {
                "max_disk_bytes": 2**26,
                "retention_seconds": 7,
                "pending_max_age_seconds": 3,
                "recent_spans": 40,
            },
            "metrics_exporter": "otlp",
            "metrics_retention_seconds": 9,
            "metrics_max_count": 8,
            "logs_exporter": "both",
            "logs_max_count": 6,
            "logs_recent_count": 50,
            "logs_retention_seconds": 5,
            "logs_batch_size": 50,
            "logs_flush_interval_ms": 250,
            "logs_sampling_ratio": 0.5,
            "logs_console_output": False,
            "collapse_spans": [{"name": "a"}, {"name": "b", "service": "c"}],
            "level": "info",
            "format": "json",
        },
        {"DEPLOYMENT_ENVIRONMENT": "test"},
    )
    assert found.resource == {
        "service.name": "shop",
        "service.version": "2",
        "service.namespace": "eu",
        "deployment.environment": "test",
    }
    assert found.limits == Limits(5, 7, 3, 6, 5, 8, 9, 2**26, 40, 50)
    assert found.export.endpoint == "http://collector:4318"
    assert (found.export.spans, found.export.metrics, found.export.logs) == (True, True, True)
    assert (found.export.batch, found.export.interval) == (50, 0.25)
    assert (found.live, found.logs_ratio, found.logs_console) == (False, 0.5, False)
    assert found.collapse == (Collapse("a"), Collapse("b", "c"))


def test_the_environment_counts_where_the_configuration_says_nothing() -> None:
    environ = {
        "OTEL_SERVICE_NAME": "env",
        "OTEL_EXPORTER_TYPE": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
        "OTEL_MEMORY_MAX_SPANS": "77",
        "OTEL_LIVE_SPANS": "false",
        "OTEL_ENABLED": "0",
    }
    found = options_from({"service_name": "own"}, environ)
    assert found.resource == {"service.name": "own"}
    assert (found.export.spans, found.export.endpoint) == (True, "http://c:4318")
    assert found.sampling == Sampling(0.25, (), False, None)
    assert (found.limits.spans, found.live, found.enabled) == (77, False, False)
    environ = {
        "SERVICE_VERSION": "3",
        "SERVICE_NAMESPACE": "eu",
        "OTEL_LOGS_EXPORTER": "both",
        "OTEL_METRICS_ENABLED": "false",
    }
    more = options_from({}, environ)
    assert more.resource == {"service.name": "iii", "service.version": "3", "service.namespace": "eu"}
    assert (more.export.logs, more.metrics_enabled) == (True, False)


@pytest.mark.parametrize(
    ("config", "sampling"),
    [
        ({"sampling_ratio": 1.0}, Sampling(1.0, (), False, None)),
        ({"sampling": {}}, Sampling(1.0, (), False, None)),
        ({"sampling": {"default": 0.1}}, Sampling(0.1, (), False, None)),
        ({"sampling_ratio": 0.3, "sampling": {"parent_based": True}}, Sampling(0.3, (), True, None)),
        ({"sampling": {"rules": [{"rate": 0}]}}, Sampling(1.0, (SamplingRule(0.0),), True, None)),
        ({"sampling": {"rate_limit": {"max_traces_per_second": 5}}}, Sampling(1.0, (), True, 5.0)),
    ],
)
def test_sampling(config: dict[str, Any], sampling: Sampling) -> None:
    assert options_from(config, {}).sampling == sampling


def test_the_sampling_is_asked_of_the_engine_and_echoed() -> None:
    rules = [{"operation": "a*", "service": None, "rate": 0.5}]
    sampling = options_from({"sampling": {"default": 0.1, "rules": rules}}, {}).sampling
    assert sampling.to_json() == {"default_ratio": 0.1, "rules": rules, "parent_based": True}
    assert sampling.for_engine() == {
        "default": 0.1,
        "rules": rules,
        "parent_based": True,
        "max_traces_per_second": None,
    }


@pytest.mark.parametrize(
    ("fields", "listener"),
    [
        ({"port": 5}, ListenerOptions(True, "127.0.0.1", 5, True)),
        (True, ListenerOptions(True, "127.0.0.1", 4318)),
        (False, ListenerOptions(False, "127.0.0.1", 4318)),
        ({"host": "::1"}, ListenerOptions(True, "::1", 4318)),
        ({"enabled": False, "port": 0}, ListenerOptions(False, "127.0.0.1", 0, True)),
    ],
)
def test_listeners(fields: Any, listener: ListenerOptions) -> None:
    assert options_from({"otlp_listener": fields}, {}).otlp_listener == listener


@pytest.mark.parametrize(
    "config",
    [
        {"unknown": 1},
        {"enabled": "yes"},
        {"exporter": "jaeger"},
        {"endpoint": "collector:4317"},
        {"sampling_ratio": 1.1},
        {"sampling_ratio": True},
        {"sampling": []},
        {"sampling": {"ratio": 1}},
        {"sampling": {"rules": [{"operation": 5, "rate": 1}]}},
        {"sampling": {"rules": [{}]}},
        {"sampling": {"rate_limit": {"max_traces_per_second": -1}}},
        {"sampling": {"rate_limit": {"burst": 1}}},
        {"memory_max_spans": 0},
        {"trace_storage": {"max_disk_bytes": 1}},
        {"trace_storage": {"disk": 1}},
        {"trace_storage": "here"},
        {"logs_batch_size": 10_001},
        {"logs_flush_interval_ms": 99},
        {"alerts": {}},
        {"alerts": [{"name": "a", "metric": "m", "threshold": 1}] * 2},
        {"collapse_spans": ["a"]},
        {"collapse_spans": [{"service": "a"}]},
        {"prometheus": {"host": "0.0.0.0"}},
        {"prometheus": {"port": 70_000}},
        {"otlp_listener": 4318},
        {"service_name": 5},
        {"store_method": "redis"},
    ],
)
def test_what_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="observability"):
        options_from(config, {})


def test_a_variable_that_is_no_number() -> None:
    with pytest.raises(OptionError, match="OTEL_TRACES_SAMPLER_ARG"):
        options_from({}, {"OTEL_TRACES_SAMPLER_ARG": "half"})
