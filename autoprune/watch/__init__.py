"""A run while it runs: its report on a page of this machine that follows it, and events for a terminal.

`source` reads a run, of this machine or of a cluster; `server` serves its page; `events` tells what changed.
Imports `report`, `run`, `jobs` and `core`; no torch. Begin with `source`.
"""
