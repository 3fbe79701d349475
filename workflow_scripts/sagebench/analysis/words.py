"""The words of the figures: units, what ran where, what a reader must know beside the picture."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from sagebench.analysis.points import going_along
from sagebench.records import MEMORY_COUNTER

MEMORY_NAMES = {
    "peak_host_private_bytes": "private memory of a rank",
    "peak_reserved_bytes": "reserved memory of a GPU",
}


def trial_count(count: int) -> str:
    """ "1 trial", "3 trials"."""
    return f"{count} trial{'' if count == 1 else 's'}"


def where(rows: pd.DataFrame) -> str:
    """Data set, machine and device of the trials."""
    parts = [*rows["dataset_name"].unique(), *rows["machine"].dropna().unique()]
    devices = [part for names in rows["device_names"].dropna() for part in names.split("; ")]
    return ", ".join(dict.fromkeys([*parts, *devices]))


def memory_label(rows: pd.DataFrame) -> str:
    """Names the counter that the axis shows; it differs between CPU and CUDA."""
    kinds = rows["memory_kind"].dropna().unique()
    if len(kinds) == 0:
        kinds = [MEMORY_COUNTER[device] for device in rows["device"].unique()]
    return "Peak " + " / ".join(MEMORY_NAMES[kind] for kind in kinds) + ", GiB"


def common_notes(rows: pd.DataFrame, axis: str) -> list[str]:
    """What holds for any figure of these trials: missing ones, first epochs, hidden variation."""
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


def end_notes(ended: pd.DataFrame, column: str, name: Callable[[object], str]) -> list[str]:
    """A sentence for each end without a value and series: "Diverged, blocks: 1, 9 (2 of 3)."."""
    notes = []
    for (status, series), group in ended.groupby(["status", "series"], sort=False):
        which = ", ".join(
            name(value) + ("" if count == of else f" ({count} of {of})")
            for value, count, of in zip(group[column], group["count"], group["of"], strict=True)
        )
        notes.append(f"{status.replace('_', ' ').capitalize()}, {series}: {which}.")
    return notes
