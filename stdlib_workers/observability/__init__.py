"""The standard worker `observability`: stores spans, logs and metrics, answers queries, exports, and fires alerts."""
