"""Makes the pages of `docs/reference/` from the code they describe: `python -m docs.generators`.

A test holds the pages in the repository to what this makes. `site_hooks` is for mkdocs alone.
"""
