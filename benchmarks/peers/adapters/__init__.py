"""One module for each peer; each runs in that peer's own environment.

An adapter only calls the package that is installed there. Its docstring states how the bytes
are made that this project would send, and how the package is installed where a plain
install does not do.
"""
