"""From the trials' table to the points of a figure: series, medians over seeds, what has no value.

Pure functions over data frames: a test of a figure is a test of what these return.
"""

from __future__ import annotations

import json

import pandas as pd

from sagebench.analysis.columns import SLURM_COLUMNS, TRIAL_COLUMNS, TRIAL_VALUES
from sagebench.records import Status
from sagebench.units import GIB

AXES = {
    "batch_size": ["batch_size", "accumulation"],
    "fanout": ["fanout"],
    "ranks": ["ranks"],
}
"""The columns that an experiment's axis studies."""

ALWAYS_APART = (
    *("dataset", "model", "options", "engine", "sampler"),
    *("precision", "device", "machine"),
)
"""Values that make another series wherever they differ within one figure."""

EVALUATIONS = {"test_accuracy_full": "full", "test_accuracy_sampled": "sampled"}

WITHOUT_VALUE = (Status.OUT_OF_MEMORY, Status.TIME_LIMIT, Status.DIVERGED)


def among(trials: pd.DataFrame, column: str, name: str) -> pd.DataFrame:
    """The rows that have `name` among the names in `column` (experiments, axes)."""
    mask = [name in names.split(";") for names in trials[column]]
    return trials.loc[pd.Series(mask, index=trials.index, dtype=bool)]


def of_axis(trials: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The trials of the experiments that study `axis`, with their `series`.

    A series holds trials that differ in nothing but the axis and the seed, so a median never mixes
    unlike trials; its name says what sets it apart in this figure.
    """
    rows = among(trials, "axes", axis).copy()
    if rows.empty:
        return rows.assign(series=pd.Series(dtype=object))
    apart = _apart(rows, axis)
    rows["series"] = [
        " · ".join(_text(column, row[column]) for column in apart) or row["engine"]
        for _, row in rows.iterrows()
    ]
    return rows


def with_not_run(
    trials: pd.DataFrame, not_run: pd.DataFrame, axis: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of an axis, and of those that were left out by an estimate of their memory, with
    series of the same names; the latter with that estimate in GiB: median, low, high."""
    if len(not_run):
        trials = pd.concat([trials, not_run], ignore_index=True)
    rows = of_axis(trials, axis)
    skipped = rows["status"].eq(Status.SKIPPED)
    ends = {"median": "", "low": "_low", "high": "_high"}
    predicted = {name: rows[f"predicted_peak{end}_bytes"] / GIB for name, end in ends.items()}
    estimated = skipped & rows["predicted_peak_bytes"].notna()  # else a pilot ran out of memory
    return rows[~skipped], rows.assign(**predicted)[estimated]


def going_along(rows: pd.DataFrame, axis: str) -> list[str]:
    """Trial values that change along the axis together with it: the reader should know them."""
    apart = set(_apart(rows, axis))
    return [
        column for column in _settings(rows, axis) if column not in apart and _varies(rows, column)
    ]


def _apart(rows: pd.DataFrame, axis: str) -> list[str]:
    apart = [name for name in ALWAYS_APART if name in rows and _varies(rows, name)]
    for column in _settings(rows, axis):
        if column not in apart and _tells_experiments_apart(rows, column):
            apart.append(column)
        groups = rows.groupby([*AXES[axis], *apart], dropna=False, sort=False)[column]
        if column not in apart and (groups.nunique(dropna=False) > 1).any():
            apart.append(column)
    return sorted(apart, key=lambda name: name != "engine")


def _tells_experiments_apart(rows: pd.DataFrame, column: str) -> bool:
    """Whether a value is one within each experiment and another in another: no line joins those."""
    each = rows.assign(experiment=rows["experiments"].str.split(";")).explode("experiment")
    counts = each.groupby("experiment")[column].nunique(dropna=False)
    return _varies(rows, column) and bool((counts == 1).all())


def _settings(rows: pd.DataFrame, axis: str) -> list[str]:
    known = {column.name for column in [*TRIAL_COLUMNS, *SLURM_COLUMNS]}
    young = [name for name in rows if name not in known and not name.startswith("version_")]
    names = [column.name for column in TRIAL_VALUES] + young
    return [n for n in names if n in rows and n not in {"seed", "series", *AXES[axis]}]


def _varies(rows: pd.DataFrame, column: str) -> bool:
    return rows[column].nunique(dropna=False) > 1


def _text(column: str, value: object) -> str:
    if column == "dataset":
        return json.loads(value)["name"]
    if column == "options":
        return " · ".join(f"{key} {option}" for key, option in json.loads(value).items())
    if column in ("engine", "model", "precision", "machine"):
        return str(value)
    if column == "device":
        return {"cpu": "CPU", "cuda": "GPU"}.get(str(value), str(value))
    name = column.removesuffix("_gib").replace("_", " ")
    if value is None or value != value:
        return f"no {name}"
    if pd.api.types.is_bool(value):
        return f"{name} {str(value).lower()}"
    number = f"{value:g}" if isinstance(value, (int, float)) else str(value)
    return f"{name} {number}" + (" GiB" if column.endswith("_gib") else "")


def median(values: pd.Series) -> float | None:
    """The median of what was measured; None where nothing was."""
    measured = values.dropna()
    return float(measured.median()) if len(measured) else None


def spread(rows: pd.DataFrame, by: list[str], value: str, unit: float = 1.0) -> pd.DataFrame:
    """Columns `by`, n, median, low, high of `value` in `unit`s, where there is one.

    Groups stay in the order of the study.
    """
    measured = rows[rows[value].notna()]
    groups = measured.assign(shown=measured[value] / unit).groupby(by, sort=False)["shown"]
    return groups.agg(n="count", median="median", low="min", high="max").reset_index()


def summarise(rows: pd.DataFrame, by: list[str], value: str, unit: float = 1.0) -> pd.DataFrame:
    """`spread` over the completed trials."""
    return spread(rows[rows["status"].eq(Status.COMPLETED)], by, value, unit)


def without_value(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Columns `by`, status, count, of: measured ends that give no value, e.g. out of memory."""
    sizes = rows.groupby(by, sort=False).size()
    ended = rows[rows["status"].isin(WITHOUT_VALUE)]
    points = [
        (*key, len(group), int(sizes[key[:-1]]))
        for key, group in ended.groupby([*by, "status"], sort=False)
    ]
    return pd.DataFrame(points, columns=[*by, "status", "count", "of"])


def evaluation(rows: pd.DataFrame) -> str:
    """The column of the test accuracy to show: the one that more completed trials have."""
    done = rows[rows["status"].eq(Status.COMPLETED)]
    return max(EVALUATIONS, key=lambda column: done[column].notna().sum())


def repeats(points: pd.DataFrame) -> str:
    """ "n = 3" where every point has three repeats, else "n = 1 to 3"; no line breaks within."""
    low, high = (points["n"].min(), points["n"].max()) if len(points) else (0, 0)
    said = f"n = {low}" if low == high else f"n = {low} to {high}"
    return said.replace(" ", "\u00a0")


def rank_word(rows: pd.DataFrame, count: int = 2) -> str:
    """What a rank is: "GPUs" on CUDA, "ranks (CPU)" else; never the one for the other."""
    plural = "" if count == 1 else "s"
    devices = set(rows["device"])
    if devices == {"cuda"}:
        return f"GPU{plural}"
    return f"rank{plural} (CPU)" if devices == {"cpu"} else f"GPU{plural} or rank{plural} (CPU)"


def memory_limit(rows: pd.DataFrame) -> float | None:
    """The one limit in GiB that GPU trials ran into; None on a CPU or where there were several.

    On a CPU the cap counts from what imports took already, so it is no line on this axis.
    """
    limits = rows.loc[rows["device"].eq("cuda") & rows["limit_unit"].eq("GiB"), "limit_value"]
    found = limits.dropna().unique()
    return float(found[0]) if len(found) == 1 else None
