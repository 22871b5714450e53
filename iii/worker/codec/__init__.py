"""JSON in both directions, strict, with the fastest library that is present."""
