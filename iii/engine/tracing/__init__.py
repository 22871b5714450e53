"""Trace context, sampling decisions and the spans of workers, as values."""
