"""Benchmarks: each one file with a `rows()` of measurements, all taken side by side in one run."""
