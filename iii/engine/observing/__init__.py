"""Observers of functions: who is shown which calls, and what is called for them."""
