"""What leaves the worker: OTLP, Prometheus, live streams."""
