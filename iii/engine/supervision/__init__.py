"""Keeps workers running: instances, generations, processes, restarts, replacement, orphans."""
