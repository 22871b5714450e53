"""The functions of the worker."""
