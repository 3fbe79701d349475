"""The arithmetic of the benchmark: medians, ratios and how far they spread. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


class Figure(NamedTuple):
    """A measured value and the range that its repeats span."""

    value: float
    low: float
    high: float


def figure(repeats: Sequence[float]) -> Figure:
    """Median and range."""
    return Figure(median(repeats), min(repeats), max(repeats))


def ratio(numerators: Sequence[Sequence[float]], denominators: Sequence[Sequence[float]]) -> Figure:
    """Median over median of all repeats, and the range of the same ratio within the rounds.

    One inner sequence a round; only the rounds of which both have repeats have a ratio.
    """
    whole = median(flat(numerators)) / median(flat(denominators))
    rounds = [
        median(above) / median(below)
        for above, below in zip(numerators, denominators, strict=False)
        if above and below
    ] or [whole]
    return Figure(whole, min(rounds), max(rounds))


def flat(rounds: Sequence[Sequence[float]]) -> list[float]:
    return [value for repeats in rounds for value in repeats]
