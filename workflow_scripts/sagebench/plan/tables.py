"""The plan's tables, the same for its page and for a terminal, and the plan as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from sagebench.estimate.memory import FITS, NO_FIT, TIGHT
from sagebench.grid.expansion import Study
from sagebench.grid.trial import Trial
from sagebench.page import cells
from sagebench.page.cells import NOTHING, Cell, HtmlTable
from sagebench.plan.rows import PlanRow, totals
from sagebench.units import GIB, duration, hours_text, significant, text_table

MARKS = {FITS: "completed", TIGHT: "odd", NO_FIT: "failed"}
"""classes of the style sheet"""
COLUMNS_OF_KEYS = {
    *("engine", "model", "sampler", "method"),
    *("batch_size", "accumulation", "fanout", "ranks", "seed"),
}
PAGE_ALONE = ("Trial", "Memory reserved", "Epoch, 90 % interval")
"""columns that a terminal has no room for"""
ROWS_SHOWN = 200
"""on a terminal: more than anybody reads; plan.csv and plan.html have them all"""


def device_word(study: Study) -> str:
    """Label of device hours: GPU, or Device on a CPU."""
    return "GPU" if study.site.device == "cuda" else "Device"


def as_csv(rows: Sequence[PlanRow], device: str) -> str:
    """The rows as CSV, with the unit of the hours in their names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        f"{device.lower()}_{name}" if name.startswith("hours_") else name
        for name in (*PlanRow._fields, "measured")
    )
    for row in rows:
        writer.writerow([_csv_cell(value) for value in (*row, row.measured)])
    return text.getvalue()


def _csv_cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else round(value)
    return value


def as_text(study: Study, rows: Sequence[PlanRow], sentences: Sequence[str] = ()) -> str:
    """The plan for a terminal. sentences: what to know before submitting."""
    unit = device_word(study)
    lines = [f"{study.name} on {study.site.machine}", ""]
    tables = [every_trial(study, rows)] if len(rows) <= ROWS_SHOWN else []
    for table in (*tables, experiments(rows, unit)):
        shown = [k for k, name in enumerate(table.columns) if name not in PAGE_ALONE]
        left = [place for place, k in enumerate(shown) if table.kinds[k] != "number"]
        texts = [[row[k].text for k in shown] for row in table.rows]
        lines += text_table([table.columns[k] for k in shown], texts, left)
        lines += ["", f"{table.caption}.", ""]
    lines.append("Hours are estimates, or the time asked for where nothing is estimated.")
    if sentences:
        lines += ["", *(f"! {sentence}" for sentence in sentences)]
    return "\n".join(lines)


def experiments(rows: Sequence[PlanRow], unit: str) -> HtmlTable:
    """A row for each experiment, and the study's. unit: of the device hours."""
    return _table(
        "Of the trials still to run; the row “all” counts a shared one once",
        (
            {
                "Experiment": one.name,
                "Trials": one.trials,
                "Measured": one.measured or None,
                "Skipped": one.skipped or None,
                "To run": one.to_run,
                "Predicted": one.predicted or None,
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


def every_trial(study: Study, rows: Sequence[PlanRow]) -> HtmlTable:
    """A row for each trial; what decides stands first: the table is wider than most screens."""
    unit, axes = device_word(study), {one.name: one.axis for one in study.experiments}
    return _table(
        "~: not measured on the trial itself; intervals are 90 % intervals; memory is what a "
        "trial needs, reserved what the allocator holds for it",
        (
            {
                "Experiment": row.experiment,
                "Axis": _place(study.requests[row.trial].trial, axes[row.experiment]),
                "Engine": row.engine,
                "Batch × acc.": row.batch_size
                and Cell(f"{row.batch_size:,} × {row.accumulation}", row.batch_size),
                "Fanout": cells.cell("fanout", row.fanout),
                "Ranks (nodes)": Cell(f"{row.ranks} ({row.nodes})", row.ranks),
                "Fits": _verdict(row),
                "Whole trial": _whole_trial(row),
                "Figures are": _figures_are(row),
                f"{unit}-hours used": _hours(row.hours_used),
                "allocated": _hours(row.hours_allocated),
                "Memory": _memory(row),
                "Memory reserved": _reserved(row),
                "Epoch": _seconds(row, row.epoch_s),
                "Epoch, 90 % interval": row.epoch_low_s
                and row.epoch_high_s
                and cells.time_range(row.epoch_low_s, row.epoch_high_s),
                "Energy, kWh": _kwh(row.energy_kj),
                "Seed": row.seed,
                "Trial": row.trial,
            }
            for row in rows
        ),
    )


def _place(trial: Trial, axis: str) -> str | None:
    """The trial's values of the keys of an axis that have no column of their own."""
    keys = [key for key in axis.split("-") if key not in COLUMNS_OF_KEYS]
    values = ((key, trial.options.get(key, getattr(trial, key, None))) for key in keys)
    return ", ".join(f"{key} {value}" for key, value in values) or None


def _table(caption: str, rows: Iterable[dict[str, Any]]) -> HtmlTable:
    """Table of cells, or values, without its empty columns."""
    found = [{name: cells.cell(name, value) for name, value in row.items()} for row in rows]
    columns = [name for name in found[0] if any(row[name] != NOTHING for row in found)]
    return HtmlTable(caption, columns, [[row[name] for name in columns] for row in found])


def _hours(hours: float, low: float = 0.0, high: float = 0.0) -> Cell:
    between = f" ({hours_text(low)} to {hours_text(high)})" if high > low else ""
    return Cell(hours_text(hours) + between, hours)


def _memory(row: PlanRow) -> Cell | None:
    """The measured peak, what the trial needs as estimated, or what its pilot reached."""
    size = row.memory_bytes
    if row.measured or size is None:
        return cells.memory(size)
    gib = f"{significant(size / GIB)} GiB"
    shown = f"{gib} in its pilot" if row.needed_memory_bytes is None else f"~{gib}"
    return Cell(shown, size, mark="model")


def _reserved(row: PlanRow) -> Cell | None:
    """The estimated peak with its interval."""
    peak, low, high = row.peak_memory_bytes, row.peak_memory_low_bytes, row.peak_memory_high_bytes
    if peak is None or low is None or high is None:
        return None
    peak_gib, low_gib, high_gib = (significant(size / GIB) for size in (peak, low, high))
    return Cell(f"~{peak_gib} GiB ({low_gib} to {high_gib})", peak, mark="model")


def _verdict(row: PlanRow) -> Cell | None:
    if row.status:
        return cells.cell("status", row.status.value)
    if row.fits is None:
        return None
    words = row.fits if row.fits != TIGHT else f"tight ({row.out_of_memory_chance:.0%})"
    return Cell(words + (", not run" if row.skipped else ""), row.fits, mark=MARKS[row.fits])


def _seconds(row: PlanRow, seconds: float | None) -> Cell:
    """Marked where it was not measured."""
    if row.measured or seconds is None:
        return cells.time(seconds)
    return Cell(f"~{duration(seconds)}", seconds, mark="model")


def _whole_trial(row: PlanRow) -> Cell:
    if row.total_h is None and not row.measured:
        return Cell(f"{duration(3600 * row.walltime_h)} asked", 3600 * row.walltime_h)
    return _seconds(row, row.total_h and 3600 * row.total_h)


def _figures_are(row: PlanRow) -> Cell:
    if row.skipped:
        return cells.text("skipped", mark="failed")
    return cells.text(row.time_basis or row.source, "completed" if row.measured else "model")


def _kwh(energy_kj: float | None) -> Cell:
    return cells.number(None if energy_kj is None else energy_kj / 3600)
