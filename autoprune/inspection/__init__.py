"""What can be said of a model, a library or a run without a search, and drafting a search space.

`records` makes what `autoprune inspect` prints; `draft` proposes a space for a model that has none, and
`removal_check` proves that removing equals masking. Imports everything below. Begin with `records`.
"""
