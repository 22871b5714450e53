"""Telemetry for the observability worker: the exporter, span and log records, metrics."""
