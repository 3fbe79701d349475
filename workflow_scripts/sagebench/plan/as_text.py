"""The plan for a terminal, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from sagebench.grid.expansion import Study
from sagebench.plan.rows import PREDICTED, PlanRow, Total, totals
from sagebench.text_table import text_table
from sagebench.units import GIB, duration, hours_text

# More rows than anybody reads on a terminal; plan.csv and plan.html have them all.
ROWS_SHOWN = 200


def device_word(study: Study) -> str:
    """What an hour is an hour of: a CPU rank is no GPU."""
    return "gpu" if study.site.device == "cuda" else "device"


def as_csv(rows: Sequence[PlanRow], device: str) -> str:
    """The rows as CSV, with the unit of the hours in their names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        f"{device}_{name}" if name.startswith("hours_") else name
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
    unit = f"{device_word(study).replace('gpu', 'GPU')}-hours"
    lines = [f"{study.name} on {study.site.machine}", ""]
    if len(rows) <= ROWS_SHOWN:
        lines += [*_trials(rows, unit), ""]
        if any(row.memory_bytes is not None for row in rows):
            lines += [_gib_is(rows), ""]
    lines += [*_totals(totals(rows), unit), ""]
    lines += [_hours_are(rows)]
    if sum(len(experiment.trials) for experiment in study.experiments) > len(study.requests):
        lines.append("A trial that several experiments share runs once; `all` counts it once.")
    if sentences:
        lines += ["", *(f"! {sentence}" for sentence in sentences)]
    return "\n".join(lines)


def _trials(rows: Sequence[PlanRow], unit: str) -> list[str]:
    memory = any(row.memory_bytes is not None or row.fits for row in rows)
    times = any(row.epoch_s is not None for row in rows)
    energy = any(row.energy_kj is not None for row in rows)
    head = ["experiment", "engine", "batch", "accum.", "fanout", "seed", "ranks", "nodes"]
    head += [*(["GiB", "memory"] if memory else []), *(["epoch"] if times else [])]
    head += ["time", f"{unit} used", "allocated", *(["kWh"] if energy else []), "from"]
    cells = []
    for row in rows:
        model = "" if row.measured else "~"  # every figure of a model is marked as one
        line = [row.experiment, row.engine, str(row.batch_size), str(row.accumulation)]
        line += [row.fanout, str(row.seed), str(row.ranks), str(row.nodes)]
        if memory:
            least = "" if row.measured else "~" if row.needed_memory_bytes else ">"
            size = row.memory_bytes
            line += ["-" if size is None else f"{least}{size / GIB:.2f}"]
            line += [row.fits or (row.status.words if row.status else "-")]
        if times:
            line += ["-" if row.epoch_s is None else f"{model}{duration(row.epoch_s)}"]
        hours = row.total_h if row.total_h is not None else row.walltime_h
        line += [("" if row.total_h is None else model) + duration(3600 * hours)]
        line += [hours_text(row.hours_used), hours_text(row.hours_allocated)]
        if energy:
            line += ["-" if row.energy_kj is None else model + hours_text(row.energy_kj / 3600)]
        cells.append([*line, "skipped" if row.skipped else row.time_basis or row.source])
    left = {"experiment", "engine", "fanout", "memory", "from"}
    return text_table(head, cells, {head.index(name) for name in left if name in head})


def _gib_is(rows: Sequence[PlanRow]) -> str:
    there = {
        "its measured peak": any(row.measured for row in rows),
        "an estimate (~)": any(row.needed_memory_bytes for row in rows),
        "the peak of a pilot's few steps (>)": any(row.pilot_memory_bytes for row in rows),
    }
    kinds = " or ".join(kind for kind, is_there in there.items() if is_there)
    return f"GiB: what the fullest rank takes to train: {kinds}."


def _totals(found: Sequence[Total], unit: str) -> list[str]:
    skipped = any(total.skipped for total in found)
    head = ["experiment", "trials", "measured", *(["skipped"] if skipped else []), "to run"]
    head += ["predicted", f"{unit} used", "allocated", "node-hours"]
    energy = any(total.energy_kj is not None for total in found)
    head += ["energy kWh"] if energy else []
    cells = []
    for total in found:
        line = [total.name, str(total.trials), str(total.measured)]
        line += [str(total.skipped)] if skipped else []
        line += [str(total.to_run), str(total.predicted), hours_text(total.hours_used)]
        line += [hours_text(total.hours_allocated), hours_text(total.node_hours)]
        if energy:
            line += ["-" if total.energy_kj is None else hours_text(total.energy_kj / 3600)]
        cells.append(line)
    return text_table(head, cells, left={0})


def _hours_are(rows: Sequence[PlanRow]) -> str:
    to_run = [row for row in rows if row.to_run]
    predicted = sum(row.source == PREDICTED for row in to_run)
    if not predicted:
        return "Hours are the time asked for, of the trials still to run."
    if predicted == len(to_run):
        return "Hours are estimates (~), of the trials still to run; the last column says what of."
    return "Hours are estimates (~) or the time asked for, of the trials still to run."
