"""File changes become the workers to reload."""
