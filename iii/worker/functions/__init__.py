"""A Python callable becomes a function: its arguments, schema and description."""
