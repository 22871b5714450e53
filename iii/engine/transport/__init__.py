"""Bytes in and out: descriptors, WebSockets, acceptors, the poller and the message pump."""
