"""What comes in: the engine's batches and OTLP over HTTP."""
