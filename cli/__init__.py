"""The command line of iii."""
