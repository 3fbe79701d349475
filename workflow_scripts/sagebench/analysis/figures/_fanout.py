"""Fanouts by number: sixteen of them written beside sixteen points would hide the points, so each
has a number, the same in every figure, and a note below says what it stands for."""

from __future__ import annotations

import pandas as pd

from sagebench.analysis.drawing import Drawing, label_points
from sagebench.analysis.points import without_value
from sagebench.analysis.words import end_notes
from sagebench.grid.trial import Fanout


def number_points(
    drawing: Drawing, rows: pd.DataFrame, points: pd.DataFrame, x: str, y: str, looks: dict
) -> None:
    """Number the points at the columns x and y, with a note of all fanouts of `rows`, and one of
    those that have no value."""
    (axes,) = drawing.figure.axes
    numbers = {fanout: i for i, fanout in enumerate(dict.fromkeys(rows["fanout"]), start=1)}
    label_points(
        axes,
        [
            (row[x], row[y], str(numbers[row["fanout"]]), looks[row["series"]]["color"])
            for row in points.to_dict("records")
        ],
    )
    key = ", ".join(
        f"{number}:\u00a0{Fanout.parse(fanout).label}" for fanout, number in numbers.items()
    )
    ended = without_value(rows, ["series", "fanout"])
    ends = end_notes(ended, "fanout", lambda fanout: str(numbers[fanout]))
    drawing.notes = [f"Fanouts: {key}.", *ends, *drawing.notes]
