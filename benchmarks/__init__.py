"""Benchmarks of the targets in docs/performance.md: one module a target, every figure beside a baseline.

Not part of the distribution and not run by the tests. `python -m benchmarks` runs all.
"""
