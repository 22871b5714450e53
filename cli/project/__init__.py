"""Commands that make, check and describe a project."""
