"""Measurements of what README.md and docs/results.md claim; `python -m benchmarks.NAME` starts each part."""
