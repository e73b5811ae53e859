"""A sentiment model of 5 MB in a web page: `python -m examples.browser`."""
