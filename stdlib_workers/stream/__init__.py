"""The standard worker `stream`: items in groups that are durable, and every change of them live over a WebSocket."""
