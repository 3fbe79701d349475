"""The tables of the plan's page."""

from __future__ import annotations

from collections.abc import Sequence

from sagebench.analysis import cells
from sagebench.analysis.cells import Cell, HtmlTable
from sagebench.estimate.memory import FITS, NO_FIT, TIGHT
from sagebench.grid.fanout import Fanout
from sagebench.plan.rows import PlanRow, totals
from sagebench.units import GIB, duration, durations, hours_text, significant

NEEDS_LESS = 0.97
"""of the peak: below it, the page says what a trial needs beside what its allocator holds"""
MARKS = {FITS: "completed", TIGHT: "odd", NO_FIT: "failed"}
"""classes of the style sheet"""


def experiments(rows: Sequence[PlanRow], unit: str) -> HtmlTable:
    found = totals(rows)
    energy = any(one.energy_kj is not None for one in found)
    skipped = any(one.skipped for one in found)
    measured = any(one.measured for one in found)
    columns = ["Experiment", "Trials", *(["Measured"] if measured else [])]
    columns += [*(["Not run"] if skipped else []), "To run"]
    mixed = any(one.predicted not in (0, one.to_run) for one in found)
    columns += ["Predicted"] if mixed else []
    columns += [f"{unit}-hours used", "allocated", "Node-hours"]
    columns += [*(["Energy, kWh"] if energy else []), "Longest trial"]
    body = []
    for one in found:
        hours = f"{hours_text(one.hours_used)}"
        if one.hours_used_high > one.hours_used_low:
            ends = hours_text(one.hours_used_low), hours_text(one.hours_used_high)
            hours += f" ({ends[0]} to {ends[1]})"
        body.append(
            [
                cells.text(one.name),
                cells.whole(one.trials),
                *([cells.whole(one.measured)] if measured else []),
                *([cells.whole(one.skipped)] if skipped else []),
                cells.whole(one.to_run),
                *([cells.whole(one.predicted)] if mixed else []),
                Cell(hours, one.hours_used),
                Cell(hours_text(one.hours_allocated), one.hours_allocated),
                Cell(hours_text(one.node_hours), one.node_hours),
                *([_kwh(one.energy_kj)] if energy else []),
                Cell(duration(3600 * one.longest_h), one.longest_h)
                if one.to_run
                else cells.NOTHING,
            ]
        )
    return HtmlTable(
        "Of the trials still to run; the row “all” counts a shared one once", columns, body
    )


def every_trial(rows: Sequence[PlanRow], unit: str) -> HtmlTable:
    memory = any(row.memory_bytes is not None or row.fits for row in rows)
    energy = any(row.energy_kj is not None for row in rows)
    billed = any(row.hours_allocated != row.hours_used for row in rows)
    columns = ["Experiment", "Engine", "Batch × acc.", "Fanout", "Ranks (nodes)"]
    # What decides stands first: the table is wider than most screens.
    columns += [*(["Fits"] if memory else []), "Whole trial", "Figures are", f"{unit}-hours used"]
    columns += [*(["allocated"] if billed else []), *(["Peak memory"] if memory else []), "Epoch"]
    columns += [*(["Energy, kWh"] if energy else []), "Seed", "Trial"]
    body = []
    for row in rows:
        body.append(
            [
                cells.text(row.experiment),
                cells.text(row.engine),
                Cell(f"{row.batch_size:,} × {row.accumulation}", row.batch_size),
                cells.text(Fanout.parse(row.fanout).label),
                Cell(f"{row.ranks} ({row.nodes})", row.ranks),
                *([_verdict(row)] if memory else []),
                _whole(row),
                _figures_are(row),
                Cell(hours_text(row.hours_used), row.hours_used),
                *([Cell(hours_text(row.hours_allocated), row.hours_allocated)] if billed else []),
                *([_peak(row)] if memory else []),
                _epoch(row),
                *([_kwh(row.energy_kj)] if energy else []),
                cells.whole(row.seed),
                cells.text(row.trial),
            ]
        )
    return HtmlTable(
        "~ is no measurement of the trial itself; with the interval that holds nine of ten, and "
        "what memory it needs without what the allocator only keeps",
        columns,
        body,
    )


def _peak(row: PlanRow) -> Cell:
    if row.memory_bytes is None:
        return cells.NOTHING
    if row.measured:
        return cells.memory(row.peak_memory_bytes)
    if row.peak_memory_bytes is None:
        size = significant(row.memory_bytes / GIB)
        return Cell(f"{size} GiB in its pilot", row.memory_bytes, mark="model")
    low, peak, high = (
        significant(size / GIB)
        for size in (row.peak_memory_low_bytes, row.peak_memory_bytes, row.peak_memory_high_bytes)
    )
    needs = ""
    if row.needed_memory_bytes < NEEDS_LESS * row.peak_memory_bytes:
        needs = f", needs {significant(row.needed_memory_bytes / GIB)}"
    return Cell(f"~{peak} GiB ({low} to {high}){needs}", row.peak_memory_bytes, mark="model")


def _verdict(row: PlanRow) -> Cell:
    if row.status:
        return Cell(row.status.words, row.status.value, mark=row.status.value)
    if row.fits is None:
        return cells.NOTHING
    words = row.fits if row.fits != TIGHT else f"tight ({row.out_of_memory_chance:.0%})"
    return Cell(words + (", not run" if row.skipped else ""), row.fits, mark=MARKS[row.fits])


def _epoch(row: PlanRow) -> Cell:
    if row.epoch_s is None:
        return cells.NOTHING
    if row.measured:
        return cells.time(row.epoch_s)
    spread = durations(row.epoch_low_s, row.epoch_high_s)
    return Cell(f"~{duration(row.epoch_s)} ({spread})", row.epoch_s, mark="model")


def _whole(row: PlanRow) -> Cell:
    if row.total_h is None:
        if row.measured:
            return cells.NOTHING
        return Cell(f"{duration(3600 * row.walltime_h)} asked", row.walltime_h)
    model = not row.measured
    return Cell("~" * model + duration(3600 * row.total_h), row.total_h, mark="model" * model)


def _figures_are(row: PlanRow) -> Cell:
    if row.skipped:
        return Cell("skipped", "skipped", mark="failed")
    words = row.time_basis or row.source
    return Cell(words, words, mark="completed" * row.measured or "model")


def _kwh(energy_kj: float | None) -> Cell:
    return cells.NOTHING if energy_kj is None else cells.number(energy_kj / 3600)
