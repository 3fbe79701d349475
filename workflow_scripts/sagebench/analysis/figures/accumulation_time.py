"""Gradient accumulation against time per epoch."""

from __future__ import annotations

import pandas as pd

from sagebench.analysis.chart import epoch_time, over_axis
from sagebench.analysis.drawing import Drawing

TITLE = "Time per epoch by gradient accumulation"
CAPTION = "A flat line says that adding up more micro-batches before a step costs no time."
AXIS = "batch_size"
ORDER = 3


def draw(trials: pd.DataFrame, epochs: pd.DataFrame, not_run: pd.DataFrame) -> Drawing | str:
    rows = with_several_accumulations(trials)
    if rows.empty:
        return "No batch size of this study has two accumulations."
    label = "Accumulation (micro-batches a step, log)"
    return over_axis(rows, epoch_time(trials), AXIS, label, x="accumulation")


def with_several_accumulations(rows: pd.DataFrame) -> pd.DataFrame:
    """What ran with at least two accumulations; each batch size a series of its own."""
    counts = rows.groupby(["series", "batch_size"])["accumulation"].transform("nunique")
    series = rows["series"] + " · batch size " + rows["batch_size"].astype(str)
    return rows.assign(series=series)[counts >= 2]
