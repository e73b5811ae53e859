"""The Python interface: what the commands do, as functions, and a run's result as objects.

The command line is built on it. May import all packages but `cli`. Begin with `functions` (what a user
calls), then `front` (what it gives) and `searches` (how a search is begun and taken up).
"""
