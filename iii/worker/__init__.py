"""The worker SDK: what a script needs to offer functions and to call others.

Public names are in `iii`. Loads from the standard library alone, and little of that; never imports the engine.
"""
