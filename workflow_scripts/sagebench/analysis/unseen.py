"""Unseen nodes: accuracy of every method on them in both settings, and the time to embed them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from sagebench.analysis.columns import TRIAL_VALUES
from sagebench.analysis.points import among, configurations
from sagebench.analysis.statistics import bootstrap_interval, completed
from sagebench.page import cells
from sagebench.page.cells import Cell, HtmlTable
from sagebench.units import duration, significant

AXIS = "method"
"""of the experiments that compare methods"""
SETTINGS = ("transductive", "inductive")
WAYS = {
    "forward": "forward pass",
    "frozen_update": "frozen update",
    "mean_of_neighbors": "mean of known neighbors",
    "retrained": "trained again",
}
"""by the table's names, in words"""
WITHIN = 10
"""times: nearer than that, a difference in time is no argument"""
PAPER = (
    "The GraphSAGE paper says 100 to 500 times: of DeepWalk's frozen update on a machine of 144 "
    "cores against GraphSAGE on four Titan X GPUs. Both are of one machine here."
)


def compared(trials: pd.DataFrame) -> pd.DataFrame:
    """The completed trials of the axis with unseen nodes, with a `name` of their method that is the
    same in both settings."""
    rows = completed(among(trials[trials["setting"].notna()], "axes", AXIS))
    rows = rows.assign(name=[_name(row) for row in rows.to_dict("records")])
    aside = {"dataset", "seed", "method", "model", "options", "engine", "sampler", "machine"}
    values = [column.name for column in TRIAL_VALUES if column.name not in aside]
    for name, group in rows.groupby("name", sort=False):
        differ = [value for value in values if group[value].nunique(dropna=False) > 1]
        if differ:
            rows.loc[group.index, "name"] = f"{name}, " + configurations(group, differ)
    if rows["dataset_name"].nunique() > 1:
        rows["name"] = rows["dataset_name"] + ": " + rows["name"]
    return rows


def _name(row: dict[str, Any]) -> str:
    """ "sage", "gcn, whole graph", "node2vec and features, logistic"."""
    options, method = json.loads(row["options"]), row["method"].replace("_", " ")
    if row["method"] == "minibatch":
        name = "logistic" if row["model"] == "mlp" and row["layers"] == 1 else row["model"]
    elif cells.is_missing(row["model"]):
        name = method
    else:
        name = f"{row['model']}, {method}"
    name += " and features" if options.get("beside_features") else ""
    name += f", {options['classifier']}" if "classifier" in options else ""
    return name + (", Correct and Smooth" if options.get("correct_and_smooth") else "")


def accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns name, setting, n, median, low, high of the accuracy on the unseen nodes: 95 %
    interval of the median from five repeats on, else the range."""
    found = []
    measured = rows[rows["accuracy_unseen"].notna()]
    for (name, setting), group in measured.groupby(["name", "setting"], sort=False):
        values = group["accuracy_unseen"].tolist()
        low, high = bootstrap_interval(values) or (min(values), max(values))
        found.append((name, setting, len(values), float(np.median(values)), low, high))
    return pd.DataFrame(found, columns=["name", "setting", "n", "median", "low", "high"])


def differences(rows: pd.DataFrame) -> pd.Series:
    """Accuracies lost by not having seen the nodes, by name: transductive minus inductive of the
    same seed, which has the same unseen nodes."""
    paired = rows.pivot_table(index=["name", "seed"], columns="setting", values="accuracy_unseen")
    if not set(SETTINGS) <= set(paired):
        return pd.Series(dtype=object)
    lost = (paired[SETTINGS[0]] - paired[SETTINGS[1]]).dropna()
    return lost.groupby("name").agg(list)


def accuracy_table(trials: pd.DataFrame) -> HtmlTable | None:
    rows = compared(trials)
    found, lost = accuracies(rows), differences(rows)
    table = []
    for name, group in found.groupby("name", sort=False):
        by_setting = {row["setting"]: row for row in group.to_dict("records")}
        row = {"method": name, "n": max(group["n"])}
        row |= {setting: _spread(by_setting.get(setting)) for setting in SETTINGS}
        row["lost"] = _lost(lost.get(name))
        row["all_training_s"] = rows.loc[rows["name"].eq(name), "training_s"].median()
        row["peak_memory_bytes"] = rows.loc[rows["name"].eq(name), "peak_memory_bytes"].median()
        table.append(row)
    return cells.listed(
        "Accuracy on the unseen nodes (median; 95 % interval of it from five repeats on, else the "
        "range)",
        table,
    )


def _spread(row: dict[str, Any] | None) -> Cell:
    if row is None:
        return cells.NOTHING
    text = f"{row['median']:.4f}"
    if row["n"] > 1:
        text += f" ({row['low']:.4f} to {row['high']:.4f})"
    return Cell(text, row["median"], left=True)


def _lost(values: list[float] | None) -> Cell:
    """The median difference, with its interval or range."""
    if not values:
        return cells.NOTHING
    middle = float(np.median(values))
    low, high = bootstrap_interval(values) or (min(values), max(values))
    text = f"{middle:+.4f}" + (f" ({low:+.4f} to {high:+.4f})" if len(values) > 1 else "")
    return Cell(text, middle, left=True)


def times(trials: pd.DataFrame, new_nodes: pd.DataFrame) -> pd.DataFrame:
    """Columns dataset_name, name, way, nodes, n, time_s, low_s, high_s, accuracy,
    peak_memory_bytes, energy_j: medians over the trials, least and most."""
    rows = new_nodes.merge(compared(trials)[["trial_id", "dataset_name", "name"]], on="trial_id")
    by = ["dataset_name", "name", "way", "nodes"]
    medians = {c: (c, "median") for c in ("accuracy", "peak_memory_bytes", "energy_j")}
    return (
        rows.groupby(by, sort=False)
        .agg(
            n=("time_s", "count"),
            low_s=("time_s", "min"),
            high_s=("time_s", "max"),
            time_s=("time_s", "median"),
            **medians,
        )
        .reset_index()
    )


def time_table(trials: pd.DataFrame, new_nodes: pd.DataFrame) -> HtmlTable | None:
    """A row a method and way: seconds of the fewest and the most nodes, and a node of these."""
    again = accuracies(compared(trials))
    again = again[again["setting"].eq("transductive")].set_index("name")["median"]
    table = []
    for (name, way), group in times(trials, new_nodes).groupby(["name", "way"], sort=False):
        group = group.sort_values("nodes")
        first, most = group.iloc[0], group.iloc[-1]
        one = first["time_s"] if first["nodes"] == 1 else None
        table.append(
            {
                "method": name,
                "way": WAYS.get(way, way),
                "one_node_s": one,
                "nodes": most["nodes"],
                "all_of_them_s": most["time_s"],
                # Trained again, a node is one of the transductive setting.
                "accuracy_full": again.get(name) if way == "retrained" else most["accuracy"],
                "peak_memory_bytes": most["peak_memory_bytes"],
                "energy_j": most["energy_j"],
            }
        )
    return cells.listed("Seconds to embed new nodes (medians)", table)


def findings(trials: pd.DataFrame, new_nodes: pd.DataFrame) -> list[str]:
    """Sentences on what was found, whichever way it goes; none without both ways measured."""
    found = times(trials, new_nodes)
    unseen = accuracies(compared(trials))
    sentences: list[str] = []
    for dataset, rows in found.groupby("dataset_name", sort=False):
        sentences += _finding(str(dataset), rows, unseen)
    return [*sentences, PAPER] if sentences else []


def _finding(dataset: str, rows: pd.DataFrame, unseen: pd.DataFrame) -> Iterator[str]:
    most = rows["nodes"].max()
    there = rows[rows["nodes"].eq(most)]
    sage = _fastest(there[there["way"].eq("forward") & there["name"].str.contains("sage")])
    frozen = _fastest(there[there["way"].eq("frozen_update")])
    if sage is None or frozen is None:
        return
    again = _fastest(there[there["way"].eq("retrained")])
    factor = frozen["time_s"] / sage["time_s"]
    said = (
        f"{dataset}, {most:,} new nodes at once: GraphSAGE's forward pass took "
        f"{duration(sage['time_s'])}, node2vec's frozen update {duration(frozen['time_s'])} "
        f"({significant(factor)} times)"
    )
    if again is not None:
        times_again = significant(again["time_s"] / sage["time_s"])
        said += f", training again {duration(again['time_s'])} ({times_again} times)"
    yield said + "."
    reached = unseen[unseen["setting"].eq(SETTINGS[1])].set_index("name")["median"]
    both = [reached.get(row["name"]) for row in (sage, frozen)]
    on_unseen = ""
    if all(one is not None for one in both):
        on_unseen = f" (unseen nodes: GraphSAGE {both[0]:.4f}, node2vec {both[1]:.4f})"
    if factor < WITHIN:
        yield (
            f"{dataset}: the frozen update is within {WITHIN} times of the forward pass, so what "
            f"speaks for GraphSAGE is accuracy, if anything, and not time{on_unseen}."
        )
    else:
        yield (
            f"{dataset}: the forward pass is more than {WITHIN} times faster than the frozen "
            f"update{on_unseen}."
        )
    even = break_even(rows)
    if even is not None:
        yield f"{dataset}: {even}"


def _fastest(rows: pd.DataFrame) -> pd.Series | None:
    return None if rows.empty else rows.loc[rows["time_s"].idxmin()]


def break_even(rows: pd.DataFrame) -> str | None:
    """From how many new nodes on training again is faster than the frozen update; by a line through
    the two largest numbers in logarithms."""
    frozen = _fastest(rows[rows["way"].eq("frozen_update") & rows["nodes"].eq(rows["nodes"].max())])
    again = _fastest(rows[rows["way"].eq("retrained")])
    if frozen is None or again is None:
        return None
    line = rows[rows["way"].eq("frozen_update") & rows["name"].eq(frozen["name"])]
    line = line.sort_values("nodes")
    if len(line) < 2:
        return None
    nodes, seconds = np.log(line["nodes"]).to_numpy(), np.log(line["time_s"]).to_numpy()
    slope = (seconds[-1] - seconds[-2]) / (nodes[-1] - nodes[-2])
    if slope <= 0:
        return None
    even = float(np.exp(nodes[-1] + (np.log(again["time_s"]) - seconds[-1]) / slope))
    measured = "" if even <= line["nodes"].max() else ", more than were measured"
    return (
        f"training again is faster than the frozen update from about {even:,.0f} new nodes "
        f"on{measured} (on a line through the two largest numbers)."
    )
