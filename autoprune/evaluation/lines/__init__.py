"""Lines: simple models that a front has to rise above, which are neither trials nor candidates.

`line` says what each does and measures it on a worker; `dynamic`, `tfidf` and `layerless` are all that there
are. A further line is a class with a name, `fit` and `load`, and an entry in `pipeline/lines`. Begin with
`line`.
"""
