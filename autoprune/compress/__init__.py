"""A unit's weights at a level: tensors in, fewer and smaller tensors out.

`prune_obs` decides which heads or neurons go and refits what stays, `gptq` rounds with compensated error,
`stored` says what every way of storing a weight can do, `integers` and `codebooks` are such, `ways` has all
of them, and `packing` lays codes out in bytes. `variants` makes a unit at all of its levels, `library` keeps
them on disk, `stitch` puts a model together from them. The algorithms never import the library. Imports
`models` and what is below. Begin with `variants`.
"""
