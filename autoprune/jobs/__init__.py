"""Searches as jobs of a cluster."""
