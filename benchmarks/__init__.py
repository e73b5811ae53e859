"""Measurements of what the README claims: each part is started with `python -m benchmarks.NAME`."""
