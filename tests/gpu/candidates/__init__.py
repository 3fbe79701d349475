"""Candidate Triton kernels for a step on a GPU, beside the plain path, which is their oracle."""
