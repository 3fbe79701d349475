"""Number of ranks against time per epoch."""

from __future__ import annotations

import pandas as pd

from sagebench.analysis.chart import epoch_time, over_axis
from sagebench.analysis.drawing import Drawing
from sagebench.analysis.points import rank_word

TITLE = "Time per epoch by number of ranks"
CAPTION = (
    "Time per epoch of the same training set on more ranks; hollow points are oversubscribed "
    "(more ranks × threads than cores)."
)
AXIS = "ranks"
ORDER = 1


def draw(trials: pd.DataFrame, epochs: pd.DataFrame, not_run: pd.DataFrame) -> Drawing:
    aside = trials["oversubscribed"].eq(True), "oversubscribed"
    label = f"Number of {rank_word(trials)}, log"
    return over_axis(trials, epoch_time(trials), AXIS, label, aside=aside)
