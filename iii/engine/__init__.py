"""The engine: routes calls between peers and supervises the workers of a project."""
