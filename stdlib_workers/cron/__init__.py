"""The standard cron worker: calls functions at the times that an expression names. Started by `python -m`."""
