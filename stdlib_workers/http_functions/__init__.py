"""Functions that live behind a URL, for the engine: see docs/http-functions.md."""
