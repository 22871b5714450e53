"""The standard worker `configuration`: settings by id, each with its schema, durable, with events for every change."""
