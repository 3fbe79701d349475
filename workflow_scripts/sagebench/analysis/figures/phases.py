"""Time of an optimizer step by phase, beside the step as it ran."""

from __future__ import annotations

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sagebench.analysis.columns import PHASES
from sagebench.analysis.drawing import Data, Drawing, new_figure
from sagebench.analysis.points import (
    axis_label,
    common_notes,
    configurations,
    keys_of,
    repeats,
    where,
)
from sagebench.analysis.statistics import completed
from sagebench.page.style import COLOURS, FAINT, INK, SOFT

TITLE = "Phases of an optimizer step by {axis}"
CAPTION = (
    "Coloured: the phases of one optimizer step, timed one after the other, all of its "
    "micro-batches together. Outlined: the step as it ran, where sampling and transfer overlap "
    "with computing. Waiting is for the slowest rank."
)
AXIS = {"method": None}
ORDER = 9

BAR, OVERLAPPED = 0.42, 0.2
"""heights of the two bars of a configuration, of 1"""
LOOKS = {
    "sampling": (COLOURS[0], "/////"),
    "data": (COLOURS[4], ""),
    "forward": (COLOURS[2], ""),
    "backward": (COLOURS[5], ""),
    "waiting": (FAINT, "....."),
    "synchronisation": (COLOURS[1], ""),
    "optimizer": (COLOURS[3], ""),
}


def draw(data: Data) -> Drawing | str:
    steps = step_phases(data.trials, data.axis)
    if steps.empty:
        return "No trial of this study timed its phases (phase_window_steps)."
    unit, size = ("ms", 1e-3) if steps["overlapped"].median() < 1 else ("s", 1.0)
    figure, (axes,) = new_figure(height_in=0.55 + 0.34 * len(steps))
    left = pd.Series(0.0, index=steps.index)
    places = range(len(steps))
    for phase, (colour, hatch) in LOOKS.items():
        width = steps[phase].fillna(0) / size
        axes.barh(places, width, BAR, left, color=colour, hatch=hatch, edgecolor="white", lw=0.5)
        left += width
    below = [place + (BAR + OVERLAPPED) / 2 for place in places]
    width = steps["overlapped"] / size
    axes.barh(below, width, OVERLAPPED, color="white", edgecolor=INK, linewidth=0.9)
    axes.set_yticks(places, steps["label"])
    axes.set_title(axis_label(data.trials, keys_of(data.axis)), size=8, color=SOFT, loc="left")
    axes.set_ylim(len(steps) - 0.4, -0.5)
    axes.set_xlabel(f"Time per optimizer step, {unit}")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(visible=False, axis="y")
    notes = common_notes(data.trials, data.axis)
    if (steps["ranks"].gt(1) & steps["waiting"].isna()).any():
        notes.append("Waiting was not measured in trials of an older version.")
    handles: list[Artist] = [
        Patch(label=phase, facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0.8)
        for phase, (colour, hatch) in LOOKS.items()
        if steps[phase].notna().any()
    ]
    handles.append(Patch(label="the step as it ran", facecolor="white", edgecolor=SOFT, lw=0.8))
    said = f"{where(data.trials)}. Medians over the micro-batches of a window"
    return Drawing(figure, f"{said}, and of repeats, {repeats(steps)}.", notes, handles)


def step_phases(rows: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The seconds of an optimizer step: columns of the phases, `overlapped`, what a step took in
    the timed epochs, and n, ranks and label of each configuration and series."""
    done = rows[rows["phase_micro_steps"].notna()].copy()
    for phase, per in PHASES.items():
        each = done["accumulation"] if per == "a micro-step" else 1
        done[phase] = done[f"phase_{phase}_s"] * each
    done["overlapped"] = done["epoch_time_s"] / done["steps_per_epoch"]
    done["label"] = configurations(done, keys_of(axis))
    if done["series"].nunique() > 1 and "engine" not in keys_of(axis):
        done["label"] = done["series"] + " · " + done["label"]
    groups = completed(done).groupby(["series", "label", "ranks"], sort=False)
    medians = groups[[*PHASES, "overlapped"]].median()
    return medians.assign(n=groups["overlapped"].count()).reset_index()
