"""The driver's share of a search with many workers and many trials: its real loop, workers simulated."""
