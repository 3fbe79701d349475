"""The largest of many: how far above the mean the largest of n micro-batches lies.

The size of a micro-batch's sample is a sum over its seeds, and so about normal.
"""

from __future__ import annotations

from statistics import NormalDist

NORMAL = NormalDist()


def expected_maximum(n: int) -> float:
    """Standard deviations from the mean to the expected largest of n normal values (Blom 1958)."""
    return NORMAL.inv_cdf((n - 0.375) / (n + 0.25))


def maximum_quantile(n: int, p: float) -> float:
    """Standard deviations from the mean to what the largest of n stays below with probability p."""
    return NORMAL.inv_cdf(p ** (1 / n))


def chance_above(n: int, z: float) -> float:
    """That the largest of n normal values lies more than z standard deviations above the mean."""
    return 1 - NORMAL.cdf(z) ** n
