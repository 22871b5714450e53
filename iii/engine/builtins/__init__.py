"""The functions that the engine itself provides: `engine::*`."""
