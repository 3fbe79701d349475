"""Statistics of repeated measurements; the unit of repetition is a fresh process."""

from __future__ import annotations

import statistics as st
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sagebench.records import Status

INTERVAL_FROM_N = 5
"""Below this many repeats the range is shown alone: a bootstrap of three values says nothing."""

OUTLIER_SCORE = 3.5
OUTLIER_SHARE = 0.05

WITHOUT_VALUE = (Status.OUT_OF_MEMORY, Status.TIME_LIMIT, Status.DIVERGED)


def median(values: pd.Series) -> float | None:
    """The median of what was measured; None where nothing was."""
    measured = values.dropna()
    return float(measured.median()) if len(measured) else None


def spread(rows: pd.DataFrame, by: list[str], value: str, unit: float = 1.0) -> pd.DataFrame:
    """Columns `by`, n, median, low, high of `value` in `unit`s, where there is one.

    Groups stay in the order of the study.
    """
    measured = rows[rows[value].notna()].assign(shown=rows[value] / unit)
    groups = measured.groupby(by, sort=False, dropna=False)["shown"]
    return groups.agg(n="count", median="median", low="min", high="max").reset_index()


def completed(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["status"].eq(Status.COMPLETED)]


def summarise(rows: pd.DataFrame, by: list[str], value: str, unit: float = 1.0) -> pd.DataFrame:
    """`spread` over the completed trials."""
    return spread(completed(rows), by, value, unit)


def without_value(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Columns `by`, status, count, of: measured ends that give no value, e.g. out of memory."""
    sizes = rows.groupby(by, sort=False).size()
    ended = rows[rows["status"].isin(WITHOUT_VALUE)]
    points = [
        (*key, len(group), int(sizes[key[:-1]]))
        for key, group in ended.groupby([*by, "status"], sort=False)
    ]
    return pd.DataFrame(points, columns=[*by, "status", "count", "of"])


def bootstrap_interval(values: Sequence[float], confidence: float = 0.95) -> tuple | None:
    """Percentile bootstrap interval of the median, or None below n = 5.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. The random numbers
    have a fixed seed: the same values give the same interval.
    """
    if len(values) < INTERVAL_FROM_N:
        return None
    medians = np.median(np.random.default_rng(0).choice(values, (4000, len(values))), axis=1)
    tail = (1 - confidence) / 2
    return tuple(np.quantile(medians, [tail, 1 - tail], method="nearest").tolist())


def outliers(values: Sequence[float]) -> list[bool]:
    """Which values stand far from the others: flagged for the reader, never dropped.

    Modified z-score above 3.5: Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993).
    The score alone is trigger-happy where the others agree to the last digit, so a flagged value
    also lies more than 5 % from the median. Fewer than three values flag nothing.
    """
    if len(values) < 3:
        return [False] * len(values)
    middle = st.median(values)
    deviations = [abs(value - middle) for value in values]
    spread = st.median(deviations)
    return [
        deviation > OUTLIER_SHARE * abs(middle) and 0.6745 * deviation > OUTLIER_SCORE * spread
        for deviation in deviations
    ]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, gain) points that no other beats, by rising cost.

    A point is beaten by one that costs no more and gains no less, and is better in one of the two;
    equal points both stay.
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        last = points[front[-1]] if front else None
        if last is None or points[index][1] > last[1] or points[index] == last:
            front.append(index)
    return front
