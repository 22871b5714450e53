"""The standard worker `bridge`: functions of this project on another engine, and functions of another engine here."""
