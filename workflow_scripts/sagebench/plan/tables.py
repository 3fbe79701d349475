"""The plan's tables: the same for its page and for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sagebench.estimate.memory import FITS, NO_FIT, TIGHT
from sagebench.grid.trial import Fanout
from sagebench.page import cells
from sagebench.page.cells import NOTHING, Cell, HtmlTable
from sagebench.plan.rows import PlanRow, totals
from sagebench.units import GIB, duration, durations, hours_text, significant

NEEDS_LESS = 0.97
"""of the peak: below it, the page says what a trial needs beside what its allocator holds"""
MARKS = {FITS: "completed", TIGHT: "odd", NO_FIT: "failed"}
"""classes of the style sheet"""


def experiments(rows: Sequence[PlanRow], unit: str) -> HtmlTable:
    """A row for each experiment, and the study's. unit: of the device hours."""
    caption = "Of the trials still to run; the row “all” counts a shared one once"
    return _table(
        caption,
        (
            {
                "Experiment": cells.text(one.name),
                "Trials": cells.whole(one.trials),
                "Measured": cells.whole(one.measured or None),
                "Skipped": cells.whole(one.skipped or None),
                "To run": cells.whole(one.to_run),
                "Predicted": cells.whole(one.predicted or None),
                f"{unit}-hours used": _hours(
                    one.hours_used, one.hours_used_low, one.hours_used_high
                ),
                "allocated": _hours(one.hours_allocated),
                "Node-hours": _hours(one.node_hours),
                "Energy, kWh": _kwh(one.energy_kj),
                "Longest trial": cells.time(3600 * one.longest_h if one.to_run else None),
            }
            for one in totals(rows)
        ),
    )


def every_trial(rows: Sequence[PlanRow], unit: str, *, details: bool) -> HtmlTable:
    """A row for each trial. details: with intervals and ids, which a terminal has no room for."""
    caption = "~ is no measurement of the trial itself"
    if details:
        caption += (
            "; with the interval that holds nine of ten, and what memory it needs without what the "
            "allocator only keeps"
        )
    return _table(
        caption,
        (
            {
                "Experiment": cells.text(row.experiment),
                "Engine": cells.text(row.engine),
                "Batch × acc.": Cell(f"{row.batch_size:,} × {row.accumulation}", row.batch_size),
                "Fanout": cells.text(Fanout.parse(row.fanout).label),
                "Ranks (nodes)": Cell(f"{row.ranks} ({row.nodes})", row.ranks),
                # What decides stands first: the table is wider than most screens.
                "Fits": _verdict(row),
                "Whole trial": _whole(row),
                "Figures are": _figures_are(row),
                f"{unit}-hours used": _hours(row.hours_used),
                "allocated": _hours(row.hours_allocated),
                "Memory": _memory(row, details),
                "Epoch": _epoch(row, details),
                "Energy, kWh": _kwh(row.energy_kj),
                "Seed": cells.whole(row.seed),
                **({"Trial": cells.text(row.trial)} if details else {}),
            }
            for row in rows
        ),
    )


def _table(caption: str, rows: Iterable[dict[str, Cell]]) -> HtmlTable:
    """Without the columns in which nothing stands."""
    rows = list(rows)
    columns = [name for name in rows[0] if any(row[name] != NOTHING for row in rows)]
    return HtmlTable(caption, columns, [[row[name] for name in columns] for row in rows])


def _hours(hours: float, low: float = 0.0, high: float = 0.0) -> Cell:
    between = f" ({hours_text(low)} to {hours_text(high)})" if high > low else ""
    return Cell(hours_text(hours) + between, hours)


def _memory(row: PlanRow, details: bool) -> Cell:
    """The measured peak, or what the trial needs, for the page beside the estimated peak."""
    if row.measured or row.memory_bytes is None:
        return cells.memory(row.memory_bytes)
    if row.needed_memory_bytes is None:
        size = significant(row.memory_bytes / GIB)
        return Cell(f"{size} GiB in its pilot", row.memory_bytes, mark="model")
    low, peak, high, needed = (
        significant(size / GIB)
        for size in (
            row.peak_memory_low_bytes,
            row.peak_memory_bytes,
            row.peak_memory_high_bytes,
            row.needed_memory_bytes,
        )
    )
    if not details:
        return Cell(f"~{needed} GiB", row.needed_memory_bytes, mark="model")
    needs = ""
    if row.needed_memory_bytes < NEEDS_LESS * row.peak_memory_bytes:
        needs = f", needs {needed}"
    return Cell(f"~{peak} GiB ({low} to {high}){needs}", row.peak_memory_bytes, mark="model")


def _verdict(row: PlanRow) -> Cell:
    if row.status:
        return Cell(row.status.words, row.status.value, mark=row.status.value)
    if row.fits is None:
        return NOTHING
    words = row.fits if row.fits != TIGHT else f"tight ({row.out_of_memory_chance:.0%})"
    return Cell(words + (", not run" if row.skipped else ""), row.fits, mark=MARKS[row.fits])


def _epoch(row: PlanRow, details: bool) -> Cell:
    if row.measured or row.epoch_s is None:
        return cells.time(row.epoch_s)
    between = f" ({durations(row.epoch_low_s, row.epoch_high_s)})" if details else ""
    return Cell(f"~{duration(row.epoch_s)}{between}", row.epoch_s, mark="model")


def _whole(row: PlanRow) -> Cell:
    total_s = None if row.total_h is None else 3600 * row.total_h
    if row.measured:
        return cells.time(total_s)
    if total_s is None:
        return Cell(f"{duration(3600 * row.walltime_h)} asked", 3600 * row.walltime_h)
    return Cell(f"~{duration(total_s)}", total_s, mark="model")


def _figures_are(row: PlanRow) -> Cell:
    if row.skipped:
        return Cell("skipped", "skipped", mark="failed")
    words = row.time_basis or row.source
    return Cell(words, words, mark="completed" if row.measured else "model")


def _kwh(energy_kj: float | None) -> Cell:
    return NOTHING if energy_kj is None else cells.number(energy_kj / 3600)
