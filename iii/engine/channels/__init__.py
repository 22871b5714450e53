"""Channels between a reader and a writer, and their two kinds of endpoint."""
