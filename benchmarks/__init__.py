"""Benchmarks: one file a claim; each prints its table and can write JSON."""
