"""What the engine hands to the observability worker: spans, log records, process metrics, batches of them."""
