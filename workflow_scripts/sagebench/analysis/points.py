"""The trials of an axis: their series, where they stand, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from sagebench import registry
from sagebench.analysis.columns import SLURM_COLUMNS, TRIAL_COLUMNS, TRIAL_VALUES
from sagebench.analysis.figures import heading
from sagebench.analysis.statistics import completed
from sagebench.grid.trial import Fanout
from sagebench.page.cells import is_missing
from sagebench.records import MEMORY_COUNTER, Status
from sagebench.units import GIB

ALSO = {"batch_size": ["accumulation"]}
"""keys that an axis studies beside its own"""

ALWAYS_APART = (
    *("dataset", "method", "model", "options", "engine", "sampler"),
    *("precision", "device", "machine"),
)
"""Values that make another series wherever they differ within one figure."""

EVALUATIONS = {"test_accuracy_full": "full", "test_accuracy_sampled": "sampled"}

MEMORY_NAMES = {
    "peak_host_private_bytes": "private memory of a rank",
    "peak_reserved_bytes": "reserved memory of a GPU",
}
AXIS_LABELS = {
    "batch_size": "Batch size (training nodes a rank)",
    "accumulation": "Accumulation (micro-batches a step)",
    "total_fanout": "Total fanout (product of the non-zero fanouts)",
}
BEYOND = {"total_fanout": "all", "sampled_test_nodes": "all"}
"""what null means, where it is not none"""
DEVICES = {"cpu": "CPU", "cuda": "GPU"}


def keys_of(axis: str) -> list[str]:
    """Keys that an axis studies: of a trial, or of its model's options."""
    return axis.split("-") + ALSO.get(axis, [])


def among(trials: pd.DataFrame, column: str, name: str) -> pd.DataFrame:
    """The rows that have `name` among the names in `column` (experiments, axes)."""
    mask = [name in names.split(";") for names in trials[column]]
    return trials.loc[pd.Series(mask, index=trials.index, dtype=bool)]


def of_axis(trials: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The trials of the experiments that study `axis`, with their `series`.

    A series holds trials that differ in nothing but the axis and the seed, so a median never mixes
    unlike trials; its name says what sets it apart in this figure. An option that the axis studies
    has a column of its own.
    """
    rows = among(trials, "axes", axis).copy()
    if rows.empty:
        return rows.assign(series=pd.Series(dtype=object))
    for key in set(keys_of(axis)) - set(rows):
        options = [json.loads(options) for options in rows["options"]]
        rows[key] = [one.pop(key, None) for one in options]
        rows["options"] = [json.dumps(one) for one in options]
    rows["options"] = _telling_options(rows)
    apart = _apart(rows, axis)
    rows["series"] = [_series(row, apart) for _, row in rows.iterrows()]
    return rows


def _telling_options(rows: pd.DataFrame) -> list[str]:
    """The options of each row, as JSON, without a method's own that are alike in all of its rows:
    there are many."""
    given = [json.loads(options) for options in rows["options"]]
    owners, values = registry.option_owners(), dict[tuple[str, str], set[str]]()
    for method, options in zip(rows["method"], given, strict=True):
        for key in owners:
            values.setdefault((method, key), set()).add(json.dumps(options.get(key)))

    def tells(method: str, key: str) -> bool:
        return f"method {method}" not in owners.get(key, ()) or len(values[method, key]) > 1

    return [
        json.dumps({key: value for key, value in options.items() if tells(method, key)})
        for method, options in zip(rows["method"], given, strict=True)
    ]


def _series(row: pd.Series, apart: list[str]) -> str:
    in_minibatches = not is_missing(row["engine"])
    heeded = [key for key in apart if in_minibatches or not is_missing(row[key])]
    named = " · ".join(filter(None, (_setting(key, row[key]) for key in heeded)))
    return named or row["engine" if in_minibatches else "method"]


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
    """Confounders: trial values that vary together with the axis, where trials have them."""
    apart = _apart(rows, axis)
    varying = (column for column in _varying(rows, axis) if column not in apart)
    return [column for column in varying if rows[column].nunique() > 1]


def _apart(rows: pd.DataFrame, axis: str) -> list[str]:
    each = rows.assign(experiment=rows["experiments"].str.split(";")).explode("experiment")
    varying = _varying(rows, axis)
    apart = [name for name in ALWAYS_APART if name in varying]
    for column in (name for name in varying if name not in ALWAYS_APART):
        # One value within each experiment, and another in another: no line joins those.
        of_experiments = each.groupby("experiment")[column].nunique(dropna=False)
        groups = rows.groupby([*keys_of(axis), *apart], dropna=False, sort=False)[column]
        if (of_experiments == 1).all() or (groups.nunique(dropna=False) > 1).any():
            apart.append(column)
    return sorted(apart, key=lambda name: name != "engine")


def _varying(rows: pd.DataFrame, axis: str) -> list[str]:
    """The values of trials that vary, seed and axis aside."""
    known = {column.name for column in [*TRIAL_COLUMNS, *SLURM_COLUMNS]}
    young = [name for name in rows if name not in known and not name.startswith("version_")]
    names = [*(column.name for column in TRIAL_VALUES), *young]
    aside = {"seed", "series", *keys_of(axis)}
    if "model" in aside and (rows.groupby("model")["options"].nunique() <= 1).all():
        aside.add("options")  # they go with the model
    return [n for n in names if n not in aside and rows[n].nunique(dropna=False) > 1]


def _setting(key: str, value: Any) -> str:
    """A trial's value as the name of a series has it."""
    if key == "dataset":
        spec = json.loads(value)
        said = [spec["name"], spec.get("setting")]
        said += [f"unseen {spec['unseen']:g}"] if "unseen" in spec else []
        said += ["by group"] if spec.get("unseen_by") == "group" else []
        return " · ".join(filter(None, said))
    if key == "options":
        return " · ".join(_option(name, one) for name, one in json.loads(value).items())
    shown, name = shown_value(key, value), key.removesuffix("_gib").replace("_", " ")
    if key in ("engine", "method", "model", "precision", "machine", "device"):
        return shown
    if is_missing(value):
        return f"no {name}"
    return f"{name} {shown}" + (" GiB" if key.endswith("_gib") else "")


def _option(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    return words if value is True else f"{words} {value}"


def shown_value(key: str, value: Any) -> str:
    """A trial's value alone."""
    if is_missing(value):
        return "none"
    if key == "fanout":
        return Fanout.parse(value).label
    if key == "sampler":
        return registry.present_name(value)
    if pd.api.types.is_bool(value):
        return str(value).lower()
    return f"{value:.10g}" if pd.api.types.is_number(value) else DEVICES.get(value, str(value))


def configurations(rows: pd.DataFrame, keys: list[str]) -> pd.Series:
    """The values of `keys` of each row, in words."""
    return rows[keys].apply(
        lambda row: " · ".join(shown_value(key, row[key]) for key in keys), axis=1
    )


def placed(rows: pd.DataFrame, keys: list[str]) -> tuple[pd.Series, dict[float, str]]:
    """Places of rows on an axis, and the names of places that are no numbers: at their value
    where it is a number, right of all of them where it is null, which is no limit; else side by
    side, in the order of the study."""
    values = rows[keys[0]]
    numeric = is_numeric_dtype(values) and not is_bool_dtype(values)
    if len(keys) == 1 and numeric and values.notna().any():
        low, high = values.min(), values.max()
        beyond = float(8 * high if low > 0 else high + (high - low) / 2 + 1)
        return values.fillna(beyond), {beyond: BEYOND.get(keys[0], "none")}
    named = configurations(rows, keys)
    names = list(dict.fromkeys(named))
    return named.map(names.index), dict(enumerate(names))


def axis_label(rows: pd.DataFrame, keys: list[str]) -> str:
    if keys == ["ranks"]:
        return f"Number of {rank_word(rows)}"
    axis = "-".join(keys)
    return AXIS_LABELS.get(axis) or heading(axis) + (", GiB" if axis.endswith("_gib") else "")


def evaluation(rows: pd.DataFrame) -> str:
    """The column of the test accuracy to show: the one that more completed trials have."""
    return max(EVALUATIONS, key=lambda column: completed(rows)[column].notna().sum())


def chosen_by(rows: pd.DataFrame) -> str:
    """Choice of the tested model, in words."""
    methods = sorted(rows["validation_method"].dropna().unique())
    return f"model chosen by {' or '.join(methods) or 'unknown'} validation"


def repeats(points: pd.DataFrame) -> str:
    """ "n = 3" where every point has three repeats, else "n = 1 to 3"; no line breaks within."""
    low, high = (points["n"].min(), points["n"].max()) if len(points) else (0, 0)
    said = f"n = {low}" if low == high else f"n = {low} to {high}"
    return said.replace(" ", "\u00a0")


def rank_word(rows: pd.DataFrame, count: int = 2) -> str:
    """Label of the ranks: "GPUs" on CUDA, "ranks (CPU)" otherwise."""
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


def memory_label(rows: pd.DataFrame) -> str:
    """Names the counter that the axis shows; it differs between CPU and CUDA."""
    kinds = rows["memory_kind"].dropna().unique()
    if len(kinds) == 0:
        kinds = [MEMORY_COUNTER[device] for device in rows["device"].unique()]
    return "Peak " + " / ".join(MEMORY_NAMES[kind] for kind in kinds) + ", GiB"


def trial_count(count: int) -> str:
    """ "1 trial", "3 trials"."""
    return f"{count} trial{'' if count == 1 else 's'}"


def where(rows: pd.DataFrame) -> str:
    """Data set, machine and device of the trials."""
    parts = [*rows["dataset_name"].unique(), *rows["machine"].dropna().unique()]
    devices = [part for names in rows["device_names"].dropna() for part in names.split("; ")]
    return ", ".join(dict.fromkeys([*parts, *devices]))


def common_notes(rows: pd.DataFrame, axis: str) -> list[str]:
    """Notes of any figure of these trials: missing ones, first epochs, hidden variation."""
    notes = []
    missing = int(rows["missing_because"].notna().sum())
    if missing:
        notes.append(f"{missing} of {len(rows)} trials have no outcome and are not shown.")
    first = int(rows["epoch_time_is_first"].eq(True).sum())
    if first:
        notes.append(
            f"{trial_count(first)} ran one epoch only: the time is the first epoch's, with warm-up."
        )
    along = going_along(rows, axis)
    if along:
        names = ", ".join(name.removesuffix("_gib").replace("_", " ") for name in along)
        notes.append(f"Changes along with the axis: {names}.")
    return notes


def end_notes(ended: pd.DataFrame, column: str, name: Callable[[Any], str]) -> list[str]:
    """A sentence for each end without a value and series: "Diverged, blocks: 1, 9 (2 of 3)."."""
    notes = []
    for (status, series), group in ended.groupby(["status", "series"], sort=False):
        which = ", ".join(
            name(value) + ("" if count == of else f" ({count} of {of})")
            for value, count, of in zip(group[column], group["count"], group["of"], strict=True)
        )
        notes.append(f"{status.replace('_', ' ').capitalize()}, {series}: {which}.")
    return notes
