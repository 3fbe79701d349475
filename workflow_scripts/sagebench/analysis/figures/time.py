"""Time per epoch over any axis."""

from __future__ import annotations

from sagebench.analysis.chart import epoch_time, over_axis
from sagebench.analysis.drawing import Data, Drawing

TITLE = "Time per epoch by {axis}"
CAPTION = (
    "Each point is the median epoch of the repeats, its bar their range; lower is faster. What "
    "ended without a value stands in the strip on top, and hollow points are of another "
    "accumulation, or of more ranks × threads than cores."
)
AXIS = {"batch_size": "batch_time", "ranks": "scaling_time", "fanout": None, "method": None}
ORDER = 1


def draw(data: Data) -> Drawing | str:
    if data.trials["epoch_time_s"].isna().all() and data.trials["status"].eq("completed").all():
        return "No trial of this axis trains in epochs."
    aside = data.trials["oversubscribed"].eq(True), "oversubscribed"
    return over_axis(data, epoch_time(data.trials), aside=aside)
