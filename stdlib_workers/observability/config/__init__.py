"""The worker's configuration: options, sampling, alert rules."""
