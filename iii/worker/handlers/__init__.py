"""Decorators and handles: a function is bound to an event, and gets the event's parts as its arguments."""
