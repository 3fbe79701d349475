"""Test accuracy over any axis."""

from __future__ import annotations

from sagebench.analysis.chart import Value, accuracy_axis, over_axis
from sagebench.analysis.drawing import Data, Drawing
from sagebench.analysis.points import chosen_by, evaluation

TITLE = "Test accuracy by {axis}"
CAPTION = "Of the model that validation chose: the median of the repeats, its bar their range."
AXIS = {"batch_size": None, "ranks": None, "fanout": None, "method": None}
ORDER = 3


def draw(data: Data) -> Drawing | str:
    column = evaluation(data.trials)
    if data.trials[column].isna().all():
        return "No trial of this study has a test accuracy."
    drawing = over_axis(data, Value(column, 1, ""), lead=chosen_by(data.trials).capitalize())
    accuracy_axis(drawing.figure.axes[0], column)
    return drawing
