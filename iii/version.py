"""The version of the whole distribution, for the engine, the SDK and the package's own metadata."""

VERSION = "0.2.0"
