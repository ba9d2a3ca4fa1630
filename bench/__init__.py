"""Benchmarks: the library against what the machine can do, and against the usual ways.

``python -m bench`` from the repository's root; see ``--help``.
"""
