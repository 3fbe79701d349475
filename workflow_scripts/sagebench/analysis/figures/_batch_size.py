"""A value over the batch size."""

from __future__ import annotations

import pandas as pd

from sagebench.analysis.chart import Value, over_axis
from sagebench.analysis.drawing import Drawing

LABEL = "Batch size (training nodes a rank, log)"


def over_batch_size(rows: pd.DataFrame, value: Value, **more: object) -> Drawing:
    """Lines join the accumulation that has the most batch sizes; the others stand beside."""
    main = main_accumulation(rows)
    aside = rows["accumulation"] != main, "other accumulation"
    lead = f"Accumulation {main}"
    return over_axis(rows, value, "batch_size", LABEL, aside=aside, lead=lead, **more)


def main_accumulation(rows: pd.DataFrame) -> int:
    """The accumulation with the most batch sizes."""
    sizes = rows.groupby("accumulation")["batch_size"].nunique()
    return int(sizes[sizes == sizes.max()].index.max())
