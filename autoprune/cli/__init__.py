"""The command line: flags, exit codes, lines for a terminal; parsing and one call into the package.

Nothing heavy is imported before a command needs it. Imports everything. Begin with `main`.
"""
