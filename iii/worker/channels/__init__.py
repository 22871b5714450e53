"""The worker's ends of channels."""
