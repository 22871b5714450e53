"""The standard queue worker: durable queues, topics, retries and dead letters. Started by `python -m`."""
