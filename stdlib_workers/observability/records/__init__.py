"""Spans, logs and metrics as values, and what can be computed from them."""
