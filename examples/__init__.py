"""Examples, each one whole way from a model to a smaller one at work; docs/examples.md lists them."""
