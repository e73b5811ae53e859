"""A model as it came: loading it, building an empty one, its canonical form, its units.

`loading` reads a folder or a hub id, `canonical` brings its layers into the few shapes that compression
knows, `units` matches a search space's rules to its modules. Nothing here compresses. Imports `space`,
`tasks` and `core`. Begin with `loading`, then `units`.
"""
