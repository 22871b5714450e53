"""From the engine's telemetry and OTLP over HTTP to committed batches, and the triggers they fire."""
