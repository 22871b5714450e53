"""The standard workers, written against the public SDK only."""
