"""The standard worker `state`: values by scope and key, durable, with events for every write."""
