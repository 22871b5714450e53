"""The command line's connection to a running engine, and the errors that can come of it."""
