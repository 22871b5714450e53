"""How a worker's lines travel: its pipes, or a WebSocket."""
