"""The standard worker `http_functions`: calls functions behind a URL for the engine. See docs/http-functions.md."""
