"""Units of memory and time; numbers and tables as people read them. Standard library only."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def significant(value: float, digits: int = 3) -> str:
    """1234.5 -> "1,230" with three digits; 0.01234 -> "0.0123"."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    return f"{rounded:,.{max(decimals, 0)}f}"


def duration(seconds: float, digits: int = 3) -> str:
    """Seconds in the unit that reads well: "56.5 µs", "40.1 ms", "12.3 s", "4.56 min", "7.22 h"."""
    unit, size = time_unit(seconds)
    return f"{significant(seconds / size, digits)} {unit}"


def durations(low: float, high: float) -> str:
    """ "3.77 to 3.79 min"."""
    unit, size = time_unit(high)
    return f"{significant(low / size)} to {significant(high / size)} {unit}"


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit in which a time reads well, and its seconds."""
    if seconds >= 2 * 3600:
        return "h", 3600.0
    if seconds >= 180:
        return "min", 60.0
    if seconds >= 0.1 or seconds <= 0:
        return "s", 1.0
    return ("ms", 1e-3) if seconds >= 1e-4 else ("µs", 1e-6)


def hours_text(hours: float) -> str:
    """Hours without a unit: two decimals, more of a small number and fewer of a large one."""
    if 0 < hours < 0.095:
        return significant(hours, 2)
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.2f}"


def csv_text(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table as CSV, truth values as true and false."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow([str(v).lower() if isinstance(v, bool) else v for v in row])
    return text.getvalue()


def text_table(
    head: Sequence[str], cells: Sequence[Sequence[str]], left: Iterable[int]
) -> list[str]:
    """The lines of a table for a terminal; the columns `left` are set flush left."""
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    left = set(left)

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()

    return [line(head), "  ".join("-" * width for width in widths), *map(line, cells)]
