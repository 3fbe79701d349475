"""Gradient accumulation against time per epoch, of the batch sizes that ran with several."""

from __future__ import annotations

import pandas as pd

from sagebench.analysis.chart import epoch_time, over_axis
from sagebench.analysis.drawing import Data, Drawing

TITLE = "Time per epoch by gradient accumulation"
CAPTION = "A flat line says that adding up more micro-batches before a step costs no time."
AXIS = "batch_size"
ORDER = 3


def draw(data: Data) -> Drawing | str:
    rows = with_several_accumulations(data.trials)
    if rows.empty:
        return "No batch size of this study has two accumulations."
    return over_axis(data._replace(trials=rows), epoch_time(data.trials), keys=["accumulation"])


def with_several_accumulations(rows: pd.DataFrame) -> pd.DataFrame:
    """Trials with at least two accumulations; each batch size a series of its own."""
    counts = rows.groupby(["series", "batch_size"])["accumulation"].transform("nunique")
    series = rows["series"] + " · batch size " + rows["batch_size"].astype(str)
    return rows.assign(series=series)[counts >= 2]
