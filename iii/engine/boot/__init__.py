"""What a run has before its first worker starts: lock, run id, token, sockets, leftovers of earlier runs."""
