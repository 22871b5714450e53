"""Commands about a running project: what it is, what it does, and what has happened in it."""
