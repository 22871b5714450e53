"""Bytes in and out: connections over descriptors and WebSockets, acceptors, the poller, the message pump."""
