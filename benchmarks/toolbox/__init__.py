"""Which tools of the toolbox pay? See `__main__`."""
