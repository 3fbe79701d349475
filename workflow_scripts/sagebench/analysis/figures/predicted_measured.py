"""Predicted against measured: a panel for memory and one for time, a point a trial."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from sagebench.analysis.chart import draw_points
from sagebench.analysis.comparison import ENDS, EPOCH, MEMORY, compared
from sagebench.analysis.drawing import Data, Drawing, new_figure, series_handles, value_axis
from sagebench.analysis.statistics import completed
from sagebench.page.style import FAINT, SOFT, looks
from sagebench.units import GIB, time_unit

TITLE = "Predicted against measured"
CAPTION = (
    "On the line, both are equal; the band is 20 % to either side, and bars are the predictions' "
    "90 % intervals."
)
AXIS = None
ORDER = 1


def draw(data: Data) -> Drawing | str:
    trials = data.trials.assign(engine=data.trials["engine"].fillna(data.trials["method"]))
    unit, seconds = time_unit(trials[EPOCH.measured].median())
    units = (MEMORY, GIB, "Peak memory, GiB"), (EPOCH, seconds, f"Epoch time, {unit}")
    panels = [(compared(completed(trials), one), size, label) for one, size, label in units]
    panels = [panel for panel in panels if not panel[0].empty]
    if not panels:
        return "Nothing was estimated of a trial before it ran (make probe, make pilot)."
    engines = looks(pd.concat([rows["engine"] for rows, _, _ in panels]))
    figure, axes = new_figure(len(panels), 2.9, sharey=False)
    for axis, panel in zip(axes, panels, strict=True):
        _panel(axis, *panel, engines)
    handles = series_handles(engines, line="none")
    return Drawing(figure, f"Each point is a trial. {CAPTION}", handles=handles)


def _panel(axes: Axes, rows: pd.DataFrame, size: float, label: str, looks: dict) -> None:
    rows = rows.assign(**{name: rows[name] / size for name in ENDS})
    values = [value for name in ENDS for value in rows[name]]
    value_axis(axes, values, f"{label}, measured", "x")
    value_axis(axes, values, "predicted")
    ends = axes.get_xlim()
    axes.plot(ends, ends, color=SOFT, linewidth=0.9, zorder=1)
    low, high = [0.8 * end for end in ends], [1.2 * end for end in ends]
    axes.fill_between(ends, low, high, color=FAINT, alpha=0.6, linewidth=0, zorder=0)
    for engine, group in rows.groupby("engine", sort=False):
        look = {**looks[engine], "ecolor": (looks[engine]["color"], 0.45)}
        draw_points(axes, group, *ENDS, **look)
