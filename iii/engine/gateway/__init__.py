"""WebSocket listeners for official SDKs: the gateway, its sessions, authentication and the checks of RBAC sessions."""
