"""Bytes in and out of the engine: connections over descriptors and WebSockets, acceptors, the poller, the message pump."""
