"""Several engines as one: which engines there are, and what travels between two of them."""
