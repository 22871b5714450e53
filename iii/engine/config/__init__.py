"""iii.toml becomes frozen specs; every mistake in it has a file, a line and a column."""
