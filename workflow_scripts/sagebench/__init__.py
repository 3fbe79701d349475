"""Benchmarks GraphSAGE training on supercomputers."""

__version__ = "0.1.0"
