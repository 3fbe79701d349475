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
METHOD = ["dataset_name", "name"]
"""columns that say which method is meant"""
DRAWN = ["dataset_name", "split", "unseen", "unseen_by"]
"""columns that say what the unseen nodes are drawn of"""
SETTINGS = ("transductive", "inductive")
WAYS = {
    "forward": "forward pass",
    "frozen_update": "frozen update",
    "mean_of_neighbors": "mean of known neighbors",
    "retrained": "trained again",
}
"""by the table's names, in words"""
IN_NAME = ["beside_features", "correct_and_smooth"]
"""options that the name of a method says"""
WITHIN = 10
"""times: nearer than that, a difference in time is no argument"""
MEASURED = ("accuracy", "peak_memory_bytes", "energy_j")
PAPER = (
    "The GraphSAGE paper says 100 to 500 times: of DeepWalk's frozen update on a machine of 144 "
    "cores against GraphSAGE on four Titan X GPUs."
)


def compared(trials: pd.DataFrame) -> pd.DataFrame:
    """The completed trials of the axis with unseen nodes, with a `name` of their method that is the
    same in both settings, and differs between methods of a data set."""
    rows = completed(among(trials[trials["setting"].notna()], "axes", AXIS))
    rows = rows.assign(
        name=[_name(row) for row in rows.to_dict("records")],
        split=[json.loads(spec).get("split") for spec in rows["dataset"]],
    )
    options = pd.DataFrame([json.loads(one) for one in rows["options"]], rows.index)
    options = options.drop(columns=IN_NAME, errors="ignore").add_prefix("option ")
    rows = pd.concat([rows, options], axis=1)
    aside = {"dataset", "seed", "method", "model", "options", "machine"}
    values = [column.name for column in TRIAL_VALUES if column.name not in aside]
    values += [*DRAWN[1:], *options]
    for (_, name), group in rows.groupby(["dataset_name", "name"], sort=False):
        differ = [value for value in values if group[value].nunique(dropna=False) > 1]
        if differ:
            rows.loc[group.index, "name"] = f"{name}, " + configurations(group, differ)
    return rows


def _name(row: dict[str, Any]) -> str:
    """ "sage", "gcn, whole graph", "node2vec and features, logistic"."""
    options, method = json.loads(row["options"]), row["method"].replace("_", " ")
    classifier = "logistic" if row["layers"] == 1 else "mlp"
    if row["method"] == "minibatch":
        name = classifier if row["model"] == "mlp" else row["model"]
    elif row["method"] == "node2vec":
        name = f"{method}{' and features' if options.get('beside_features') else ''}, {classifier}"
    else:
        name = method if cells.is_missing(row["model"]) else f"{row['model']}, {method}"
    return name + (", Correct and Smooth" if options.get("correct_and_smooth") else "")


def accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns dataset_name, name, setting, n, median, low, high of the accuracy on the unseen
    nodes: 95 % interval of the median from five repeats on, else the range."""
    found = []
    measured = rows[rows["accuracy_unseen"].notna()]
    for key, group in measured.groupby([*METHOD, "setting"], sort=False):
        values = group["accuracy_unseen"].tolist()
        found.append((*key, len(values), *_median_within(values)))
    return pd.DataFrame(found, columns=[*METHOD, "setting", "n", "median", "low", "high"])


def _median_within(values: list[float]) -> tuple[float, float, float]:
    """The median, and what it lies in: its 95 % interval where there are enough values, else their
    range."""
    low, high = bootstrap_interval(values) or (min(values), max(values))
    return float(np.median(values)), low, high


def differences(rows: pd.DataFrame) -> pd.Series:
    """Accuracies lost by not having seen the nodes, by data set and name: transductive minus
    inductive of the same seeds, which have the same unseen nodes."""
    same = [*METHOD, "seed", "split_seed"]
    paired = rows.pivot_table(index=same, columns="setting", values="accuracy_unseen")
    if not set(SETTINGS) <= set(paired):
        return pd.Series(dtype=object)
    lost = (paired[SETTINGS[0]] - paired[SETTINGS[1]]).dropna()
    return lost.groupby(METHOD).agg(list)


def accuracy_table(trials: pd.DataFrame) -> HtmlTable | None:
    rows = compared(trials)
    found, lost = accuracies(rows), differences(rows)
    table = []
    for (dataset, name), group in found.groupby(METHOD, sort=False):
        by_setting = {row["setting"]: row for row in group.to_dict("records")}
        of_name = rows[rows["dataset_name"].eq(dataset) & rows["name"].eq(name)]
        table.append(
            {
                "dataset_name": dataset,
                "method": name,
                "n": max(group["n"]),
                **{setting: _spread(by_setting.get(setting)) for setting in SETTINGS},
                "lost": _lost(lost.get((dataset, name))),
                "all_training_s": of_name["training_s"].median(),
                "most_memory_bytes": of_name["peak_memory_bytes"].median(),
            }
        )
    return _listed(
        "Accuracy on the unseen nodes (median; 95 % interval of it from five repeats on, else the "
        "range); training and memory are medians over both settings",
        table,
    )


def _listed(caption: str, rows: list[dict[str, Any]]) -> HtmlTable | None:
    """A table, without its columns that say nothing, and with its data sets where there are
    several."""
    empty = {
        key
        for key in (rows[0] if rows else ())
        if all(cells.is_missing(row[key]) or row[key] == cells.NOTHING for row in rows)
    }
    if len({row["dataset_name"] for row in rows}) == 1:
        empty.add("dataset_name")
    rows = [{key: value for key, value in row.items() if key not in empty} for row in rows]
    return cells.listed(caption, rows)


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
    middle, low, high = _median_within(values)
    text = f"{middle:+.4f}" + (f" ({low:+.4f} to {high:+.4f})" if len(values) > 1 else "")
    return Cell(text, middle, left=True)


def times(trials: pd.DataFrame, new_nodes: pd.DataFrame) -> pd.DataFrame:
    """Columns dataset_name, name, method, model, way, device, nodes, n, time_s, low_s, high_s,
    accuracy, peak_memory_bytes, energy_j: medians over the trials, least and most; of a single
    trial the least and most of its repeats.

    `retrained` is what node2vec's transductive trials took, whose graph has the new nodes. The most
    nodes of a trial may be others of another seed: they stand under their median.
    """
    kept = ["trial_id", *METHOD, *DRAWN[1:], "method", "model"]
    found = compared(trials)
    rows = new_nodes.merge(found[kept], on="trial_id")
    if rows.empty:
        return rows.assign(n=[], device=[])
    most = rows.groupby("trial_id")["nodes"].transform("max")
    rows["most"] = rows["nodes"].where(rows["nodes"].eq(most))
    middle = rows.groupby(DRAWN, dropna=False)["most"].transform("median")
    rows["nodes"] = rows["nodes"].mask(rows["nodes"].eq(most), middle)
    again = found[found["method"].eq("node2vec") & found["setting"].eq(SETTINGS[0])]
    again = again.merge(rows.groupby(METHOD, as_index=False)["nodes"].max(), on=METHOD)
    again = again.assign(
        way="retrained",
        time_s=again["training_s"],
        accuracy=again["accuracy_unseen"],
        energy_j=again["energy_nvml_j"],
    )
    rows = pd.concat([rows, again[[*kept, "way", "nodes", "time_s", "device", *MEASURED]]])
    alone = rows.groupby([*METHOD, "way", "nodes"])["time_s"].transform("count").eq(1)
    for end in ("low_s", "high_s"):
        rows[end] = rows[end].where(alone).fillna(rows["time_s"])
    by = [*METHOD, "method", "model", "way", "device", "nodes"]
    rows = rows.sort_values(METHOD, key=lambda column: pd.factorize(column)[0], kind="stable")
    return (
        rows.groupby(by, sort=False, dropna=False)
        .agg(
            n=("time_s", "count"),
            low_s=("low_s", "min"),
            high_s=("high_s", "max"),
            time_s=("time_s", "median"),
            **{column: (column, "median") for column in MEASURED},
        )
        .reset_index()
    )


def time_table(trials: pd.DataFrame, new_nodes: pd.DataFrame) -> HtmlTable | None:
    """A row a method and way: seconds of one node, and of the most."""
    table = []
    found = times(trials, new_nodes)
    for (dataset, name, way), group in found.groupby([*METHOD, "way"], sort=False):
        group = group.sort_values("nodes")
        first, most = group.iloc[0], group.iloc[-1]
        table.append(
            {
                "dataset_name": dataset,
                "method": name,
                "way": WAYS.get(way, way),
                "on": most["device"],
                "one_node_s": first["time_s"] if first["nodes"] == 1 else None,
                "nodes": most["nodes"],
                "all_of_them_s": most["time_s"],
                "accuracy_full": most["accuracy"],
                "most_memory_bytes": most["peak_memory_bytes"],
                "energy_j": most["energy_j"],
            }
        )
    return _listed(
        "Seconds to embed new nodes (medians), and the accuracy of what was timed, whose forward "
        "pass samples; trained again: the transductive trials",
        table,
    )


def findings(trials: pd.DataFrame, new_nodes: pd.DataFrame) -> list[str]:
    """Sentences on what was found, whichever way it goes; none without both ways measured."""
    found = times(trials, new_nodes)
    sentences: list[str] = []
    for dataset, rows in found.groupby("dataset_name", sort=False):
        sentences += _finding(str(dataset), rows)
    return [*sentences, paper_note(found)] if sentences else []


def paper_note(found: pd.DataFrame) -> str:
    """The paper's factor, and what it and ours compare."""
    devices = set(found["device"].dropna())
    ours = "Both are of one machine here"
    return f"{PAPER} {ours}{', the forward pass on its GPU' if 'cuda' in devices else ''}."


def _finding(dataset: str, rows: pd.DataFrame) -> Iterator[str]:
    """Of GraphSAGE's and node2vec's most accurate variants, of the most nodes at once."""
    most = rows["nodes"].max()
    there = rows[rows["nodes"].eq(most)].sort_values("accuracy", ascending=False)
    is_sage = (
        there["way"].eq("forward") & there["method"].eq("minibatch") & there["model"].eq("sage")
    )
    sage, frozen = (_first(there[mask]) for mask in (is_sage, there["way"].eq("frozen_update")))
    if sage is None or frozen is None:
        return
    factor = frozen["time_s"] / sage["time_s"]
    low, high = frozen["low_s"] / sage["high_s"], frozen["high_s"] / sage["low_s"]
    between = f", {significant(low, 2)} to {significant(high, 2)}" if high > low else ""
    nodes = "1 new node" if most == 1 else f"{most:,.0f} new nodes at once"
    said = (
        f"{dataset}, {nodes}, of the most accurate variants: the forward pass of {sage['name']} "
        f"took {duration(sage['time_s'])}, the frozen update of {frozen['name']} "
        f"{duration(frozen['time_s'])} ({significant(factor)} times{between})"
    )
    again = _first(there[there["way"].eq("retrained") & there["name"].eq(frozen["name"])])
    if again is not None:
        times_again = significant(again["time_s"] / sage["time_s"])
        said += f", training again {duration(again['time_s'])} ({times_again} times)"
    yield said + "."
    reached = f"accuracy on them {sage['accuracy']:.4f} and {frozen['accuracy']:.4f}"
    if low < WITHIN < high:
        yield (
            f"{dataset}: whether the forward pass is {WITHIN} times faster than the frozen update "
            f"is open ({reached})."
        )
    elif factor < WITHIN:
        yield (
            f"{dataset}: the frozen update is within {WITHIN} times of the forward pass, so what "
            f"speaks for GraphSAGE is accuracy, if anything, and not time ({reached})."
        )
    else:
        yield (
            f"{dataset}: the forward pass is more than {WITHIN} times faster than the frozen "
            f"update ({reached})."
        )
    if even := break_even(rows):
        yield f"{dataset}: {even}"


def _first(rows: pd.DataFrame) -> pd.Series | None:
    return None if rows.empty else rows.iloc[0]


def break_even(rows: pd.DataFrame) -> str | None:
    """From how many new nodes on training again is faster than the frozen update, of the variant
    that trains fastest; by a line through the two largest numbers in logarithms. None where that is
    beyond twice what was measured."""
    again = _first(rows[rows["way"].eq("retrained")].sort_values("time_s"))
    if again is None:
        return None
    line = rows[rows["way"].eq("frozen_update") & rows["name"].eq(again["name"])]
    line = line.sort_values("nodes")
    if len(line) < 2:
        return None
    nodes, seconds = np.log(line["nodes"]).to_numpy(), np.log(line["time_s"]).to_numpy()
    slope = (seconds[-1] - seconds[-2]) / (nodes[-1] - nodes[-2])
    if slope <= 0:
        return None
    even = float(np.exp(nodes[-1] + (np.log(again["time_s"]) - seconds[-1]) / slope))
    if even > 2 * line["nodes"].max():
        return None  # too far from what was measured
    measured = "" if even <= line["nodes"].max() else ", more than were measured"
    return (
        f"training again is faster than the frozen update from about {significant(even, 2)} new "
        f"nodes on{measured} (on a line through the two largest numbers)."
    )
