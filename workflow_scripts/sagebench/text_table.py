"""A table for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


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
