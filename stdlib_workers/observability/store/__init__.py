"""The tables that records are kept in, and queries over them."""
