"""The running worker: reads lines, dispatches calls to threads and the event loop, writes answers."""
