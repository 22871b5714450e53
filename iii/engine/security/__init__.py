"""Who may do what, and what may be shown: RBAC permissions, admission, the kernel's peer uid, sanitizing."""
