"""Batch size against time per epoch."""

from __future__ import annotations

import pandas as pd

from sagebench.analysis.chart import epoch_time
from sagebench.analysis.drawing import Drawing
from sagebench.analysis.figures._batch_size import over_batch_size

TITLE = "Time per epoch by batch size"
CAPTION = (
    "Each point is the median epoch of the repeats, its bar their range; lower is faster, and what "
    "ended without a value stands in the strip on top, at its batch size."
)
AXIS = "batch_size"
ORDER = 1


def draw(trials: pd.DataFrame, epochs: pd.DataFrame, not_run: pd.DataFrame) -> Drawing:
    return over_batch_size(trials, epoch_time(trials))
