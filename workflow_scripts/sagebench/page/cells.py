"""HTML tables: cells with a text and a sort key."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sagebench.grid.trial import Fanout
from sagebench.units import GIB, duration, durations, significant


@dataclass(frozen=True)
class Cell:
    """`text` is shown, `key` sorts: a number, or the text itself; None sorts last."""

    text: str
    key: float | str | None = None
    mark: str = ""  # a word for the style sheet, e.g. a status
    left: bool = False  # sorts by number, reads as words

    @property
    def numeric(self) -> bool:
        return isinstance(self.key, (int, float))


@dataclass(frozen=True)
class HtmlTable:
    """A captioned table; numeric columns are set flush right, columns of prose may wrap."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        """For each column "number", "prose" or ""."""
        if not self.rows:
            return [""] * len(self.columns)
        return [_kind(column) for column in zip(*self.rows, strict=True)]


def listed(caption: str, rows: Iterable[dict[str, Any]], columns: str = "") -> HtmlTable | None:
    """The table of rows that hold their cells, or values, by column; None without a row.

    columns: which of them, and in which order, with spaces between; all unless given.
    """
    rows = list(rows)
    if not rows:
        return None
    names = columns.split() or list(rows[0])
    body = [[cell(name, row[name]) for name in names] for row in rows]
    return HtmlTable(caption, [HEADINGS.get(name) or words(name) for name in names], body)


def cell(column: str, value: Any) -> Cell:
    """The value of a table's column, shown by what its name says of it."""
    if isinstance(value, Cell):
        return value
    if is_missing(value):
        return NOTHING
    for end, shown in SHOWN.items():
        if column.endswith(end):
            return shown(value)
    if isinstance(value, str | bool):
        return text(str(value).lower() if isinstance(value, bool) else value)
    return number(value) if isinstance(value, float) and value % 1 else whole(value)


PROSE_FROM = 36
"""characters from which a column may wrap"""


def _kind(column: Sequence[Cell]) -> str:
    keyed = [cell for cell in column if cell.key is not None]
    if keyed and all(cell.numeric and not cell.left for cell in keyed):
        return "number"
    return "prose" if max(len(cell.text) for cell in column) >= PROSE_FROM else ""


NOTHING = Cell("–")


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or value != value


def text(value: Any, mark: str = "") -> Cell:
    """A word; missing becomes a dash."""
    return NOTHING if is_missing(value) else Cell(str(value), str(value), mark)


def _numbers(shown: Callable[[Any], str]) -> Callable[[Any], Cell]:
    """Cells of numbers; missing becomes a dash."""
    return lambda value: NOTHING if is_missing(value) else Cell(shown(value), float(value))


number = _numbers(lambda value: significant(float(value), 3))
whole = _numbers(lambda value: f"{int(value):,}")
time = _numbers(lambda seconds: duration(float(seconds)))
memory = _numbers(lambda size_bytes: f"{significant(size_bytes / GIB)} GiB")
share = _numbers("{:.1%}".format)
accuracy = _numbers("{:.4f}".format)


def time_range(low: float, high: float) -> Cell:
    return Cell(durations(low, high), high - low, left=True)


def fanout(value: str, place: int) -> Cell:
    """place: sorts it, in the order of the study."""
    return Cell(Fanout.parse(value).label, float(place), left=True)


def words(name: str) -> str:
    """A column's name, for people."""
    return name[:1].upper() + name[1:].replace("_", " ")


def short(digest: str) -> str:
    """A digest's first characters, as people quote it."""
    return digest.removeprefix("sha256:")[:12]


SHOWN = {
    "_s": time,
    "_bytes": memory,
    "_kj": number,
    "_full": accuracy,
    "_sampled": accuracy,
    "speed_up": number,
    "efficiency": share,
    "_chance": _numbers("{:.0%}".format),
    "status": lambda name: text(name.replace("_", " "), mark=name),
    "experiments": lambda joined: text(joined.replace(";", ", ")),
    "fanout": lambda value: text(Fanout.parse(value).label),
}
"""how a table's column is shown, by the end of its name"""

HEADINGS = {
    "trial_id": "Trial",
    "experiments": "Experiment",
    "dataset_name": "Data set",
    "missing_because": "Why",
    "reason_rank": "Rank",
    "reason_phase": "Phase",
    "reason_message": "Message",
    "n": "n",
    "time_s": "Time",
    "largest": "Largest batch size",
    "interval": "95 % interval of the median",
    "epoch_time_s": "Time per epoch",
    "training_s": "All epochs",
    "all_training_s": "Training",
    "one_node_s": "One node",
    "all_of_them_s": "All of them",
    "most_memory_bytes": "Peak memory",
    "accuracy_full": "Accuracy",
    "lost": "Lost (same seeds)",
    "energy_j": "Energy, J",
    "peak_memory_bytes": "Peak memory",
    "test_accuracy_full": "Test accuracy (full)",
    "test_accuracy_sampled": "Test accuracy (sampled)",
    "speed_up": "Speed-up",
    "energy_kj": "Energy, kJ",
    "predicted_peak_bytes": "Peak memory, predicted",
    "predicted_memory_limit_bytes": "Limit",
    "predicted_epoch_s": "Time per epoch, predicted",
    "prediction_source": "Time rests on",
}
"""of columns whose own name does not say it well"""
