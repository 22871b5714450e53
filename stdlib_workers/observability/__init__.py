"""The observability worker: what spans, logs and metrics are kept, asked for, exported and alerted on."""
