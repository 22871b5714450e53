"""Commands that run a project or act on a running one, and the registry of all commands."""
