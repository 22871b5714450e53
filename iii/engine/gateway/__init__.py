"""WebSocket listeners for SDKs: who gets in, and what a session with rules may do."""
