"""The standard worker `console`: a page that shows what the project does, and what it can be told."""
