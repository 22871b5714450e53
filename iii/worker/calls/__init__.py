"""Calls that this worker has made and waits for, and the errors of calls."""
