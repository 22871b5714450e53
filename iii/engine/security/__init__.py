"""Rules about clients and texts: RBAC permissions, admission, the kernel's peer uid, redaction, sanitizing."""
