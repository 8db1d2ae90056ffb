"""The training corpora from packages of PyPI, npm and Debian: one reader a source, one sieve for all rows."""
