"""`iii trigger`, and the short path that makes it start fast."""
