"""Batch size against time and memory; gradient accumulation against time."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from sagebench.analysis.captions import CAPTIONS
from sagebench.analysis.chart import over_axis
from sagebench.analysis.drawing import finish, no_experiment, placeholder
from sagebench.analysis.points import memory_limit, summarise, with_not_run
from sagebench.analysis.words import memory_label, time_unit
from sagebench.units import GIB

AXIS = "batch_size"
BY = ["series", "batch_size", "accumulation"]


def figures(trials: pd.DataFrame, not_run: pd.DataFrame | None = None) -> dict[str, Figure]:
    """File name -> figure, from the trials' table. not_run: trials predicted not to fit."""
    rows, left_out = with_not_run(trials, not_run, AXIS)
    if rows.empty:
        return no_experiment(AXIS, *CAPTIONS[AXIS])
    unit, seconds = time_unit(rows["epoch_time_s"])
    time = summarise(rows, BY, "epoch_time_s", seconds)
    label = f"Time per epoch, {unit}"
    memory = summarise(rows, BY, "peak_memory_bytes", GIB)
    also = {"left_out": left_out, "limit": memory_limit(rows)}
    return {
        "batch_time": _over_batch("Time per epoch by batch size", rows, time, label),
        "batch_memory": _over_batch(
            "Peak memory by batch size", rows, memory, memory_label(rows), **also
        ),
        "accumulation_time": _over_accumulation(rows, time, label),
    }


def main_accumulation(rows: pd.DataFrame) -> int:
    """The accumulation with the most batch sizes: the one whose points a line joins."""
    sizes = rows.groupby("accumulation")["batch_size"].nunique()
    return int(sizes[sizes == sizes.max()].index.max())


def _over_batch(
    title: str, rows: pd.DataFrame, points: pd.DataFrame, label: str, **also: Any
) -> Figure:
    main = main_accumulation(rows)
    points = points.assign(aside=points["accumulation"] != main)
    labels = "Batch size (training nodes a rank, log)", label
    lead, aside = f"Accumulation {main}", "other accumulation"
    figure, _, words = over_axis(title, rows, points, AXIS, labels, lead=lead, aside=aside, **also)
    return finish(figure, words)


def over_accumulation(frame: pd.DataFrame) -> pd.DataFrame:
    """What was measured with at least two accumulations; each batch size a series of its own."""
    counts = frame.groupby(["series", "batch_size"])["accumulation"].transform("nunique")
    series = frame["series"] + " · batch size " + frame["batch_size"].astype(str)
    return frame.assign(series=series)[counts >= 2]


def _over_accumulation(rows: pd.DataFrame, time: pd.DataFrame, label: str) -> Figure:
    title = "Time per epoch by gradient accumulation"
    rows = over_accumulation(rows)
    if rows.empty:
        return placeholder(title, "No batch size of this study has two accumulations.")
    labels = "Accumulation (micro-batches a step, log)", label
    points = over_accumulation(time)
    figure, _, words = over_axis(title, rows, points, AXIS, labels, x="accumulation")
    return finish(figure, words)
