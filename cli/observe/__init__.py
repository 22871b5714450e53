"""Commands that show a running project."""
