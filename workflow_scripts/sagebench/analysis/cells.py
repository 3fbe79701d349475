"""Tables of the report: cells with a text for the eye and a key for sorting."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sagebench.grid.fanout import Fanout
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


def listed(caption: str, rows: Iterable[dict[str, Cell]]) -> HtmlTable | None:
    """The table of rows that have their cells by the columns' headings; None without a row."""
    rows = list(rows)
    cells = [list(row.values()) for row in rows]
    return HtmlTable(caption, list(rows[0]), cells) if rows else None


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


def number(value: Any, digits: int = 3) -> Cell:
    """`digits` significant digits, thousands apart; missing becomes a dash."""
    return NOTHING if is_missing(value) else Cell(significant(float(value), digits), float(value))


def whole(value: Any) -> Cell:
    return NOTHING if is_missing(value) else Cell(f"{int(value):,}", float(value))


def accuracy(value: Any, standard_error: Any = None) -> Cell:
    """standard_error: shown where it is above 0."""
    if is_missing(value):
        return NOTHING
    said = "" if is_missing(standard_error) or not standard_error else f" ± {standard_error:.4f}"
    return Cell(f"{value:.4f}{said}", float(value))


def time(seconds: Any) -> Cell:
    return NOTHING if is_missing(seconds) else Cell(duration(float(seconds)), float(seconds))


def memory(size_bytes: Any) -> Cell:
    if is_missing(size_bytes):
        return NOTHING
    return Cell(f"{significant(size_bytes / GIB)} GiB", float(size_bytes))


def time_range(low: float, high: float) -> Cell:
    return Cell(durations(low, high), high - low, left=True)


def share(value: Any, digits: int = 1) -> Cell:
    return NOTHING if is_missing(value) else Cell(f"{value:.{digits}%}", value)


def fanout(value: str, place: int) -> Cell:
    """place: sorts it, in the order of the study."""
    return Cell(Fanout.parse(value).label, float(place), left=True)


def status(value: str) -> Cell:
    return text(words(value), mark=value)


def names(joined: str) -> Cell:
    """Of experiments, as tables join them."""
    return text(joined.replace(";", ", "))


def words(name: str) -> str:
    """A status or a kind of limit, for people."""
    return name.replace("_", " ")


def short(digest: str) -> str:
    """A digest's first characters, as people quote it."""
    return digest.removeprefix("sha256:")[:12]
