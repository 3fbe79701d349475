"""Total fanout against peak memory."""

from __future__ import annotations

import pandas as pd

from sagebench.analysis.chart import over_axis, peak_memory
from sagebench.analysis.drawing import Data, Drawing, label_points
from sagebench.analysis.points import end_notes, memory_limit, placed
from sagebench.analysis.statistics import summarise, without_value
from sagebench.grid.trial import Fanout
from sagebench.page.style import looks

TITLE = "Peak memory by total fanout"
CAPTION = (
    "Total fanout is the product of the non-zero fanouts (as the slides define it, it would be 0 "
    "with a zero in it); “all” stands for every neighbor."
)
AXIS = "fanout"
ORDER = 2


def draw(data: Data) -> Drawing:
    together = pd.concat([data.trials, data.not_run]) if len(data.not_run) else data.trials
    memory, limit = peak_memory(data.trials), memory_limit(data.trials)
    more = {"line": "none", "not_run": data.not_run, "limit": limit}
    drawing = over_axis(data, memory, keys=["total_fanout"], **more)
    if any("0" in fanout.split(",") for fanout in together["fanout"]):
        zeros = "Total fanout: the product of the non-zero fanouts (with zeros the slides' is 0)."
        drawing.notes.insert(0, zeros)
    places, _ = placed(together, ["total_fanout"])
    trials = data.trials.assign(place=places[data.trials.index])
    points = summarise(trials, ["series", "fanout", "place"], memory.column, memory.unit)
    if len(data.not_run):
        points = pd.concat([points, data.not_run.assign(place=places[data.not_run.index])])
    number_points(drawing, together, points, "place", "median")
    return drawing


def number_points(
    drawing: Drawing, rows: pd.DataFrame, points: pd.DataFrame, x: str, y: str
) -> None:
    """Number the points at the columns x and y, with a note of all fanouts of `rows`, and one of
    those that have no value: sixteen fanouts written beside sixteen points would hide the points.
    """
    (axes,), look = drawing.figure.axes, looks(rows["series"])
    numbers = {fanout: i for i, fanout in enumerate(dict.fromkeys(rows["fanout"]), start=1)}
    label_points(
        axes,
        [
            (row[x], row[y], str(numbers[row["fanout"]]), look[row["series"]]["color"])
            for row in points.to_dict("records")
        ],
    )
    key = ", ".join(f"{number}:\u00a0{Fanout.parse(one).label}" for one, number in numbers.items())
    ended = without_value(rows, ["series", "fanout"])
    ends = end_notes(ended, "fanout", lambda fanout: str(numbers[fanout]))
    drawing.notes = [f"Fanouts: {key}.", *ends, *drawing.notes]
