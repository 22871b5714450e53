"""Channels between a reader and a writer, and their ends over the unix socket."""
