"""Batch size against peak memory."""

from __future__ import annotations

import pandas as pd

from sagebench.analysis.chart import peak_memory
from sagebench.analysis.drawing import Drawing
from sagebench.analysis.figures._batch_size import over_batch_size
from sagebench.analysis.points import memory_limit

TITLE = "Peak memory by batch size"
CAPTION = (
    "The highest memory of the fullest rank; the axis names the counter, and the dashed line, "
    "where there is one, is the limit that trials ran into."
)
AXIS = "batch_size"
ORDER = 2


def draw(trials: pd.DataFrame, epochs: pd.DataFrame, not_run: pd.DataFrame) -> Drawing:
    limit = memory_limit(trials)
    return over_batch_size(trials, peak_memory(trials), not_run=not_run, limit=limit)
