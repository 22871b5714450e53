"""The standard http worker: functions as REST endpoints. Started by `python -m`."""
