"""Evaluates alert rules and acts on them."""
