"""The command line of iii. Empty on purpose: `iii trigger` pays for every import."""
