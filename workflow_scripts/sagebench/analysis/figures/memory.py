"""Peak memory over any axis."""

from __future__ import annotations

from sagebench.analysis.chart import over_axis, peak_memory
from sagebench.analysis.drawing import Data, Drawing
from sagebench.analysis.points import memory_limit

TITLE = "Peak memory by {axis}"
CAPTION = (
    "The highest memory of the fullest rank; the axis names the counter, and the dashed line, "
    "where there is one, is the limit that trials ran into."
)
AXIS = {"batch_size": "batch_memory", "ranks": None, "fanout": None, "method": None}
ORDER = 2


def draw(data: Data) -> Drawing:
    limit = memory_limit(data.trials)
    return over_axis(data, peak_memory(data.trials), not_run=data.not_run, limit=limit)
