"""What everything else may use: errors, files that are written whole, the cache folder, progress.

It knows nothing of models, searches or runs, and imports nothing of the package. Begin with `errors`: each
class of error is an exit code of the command line.
"""
