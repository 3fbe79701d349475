"""The plan for a terminal, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from sagebench.grid.expansion import Study
from sagebench.page.cells import HtmlTable
from sagebench.plan.rows import PlanRow
from sagebench.plan.tables import every_trial, experiments
from sagebench.units import text_table

ROWS_SHOWN = 200
"""more than anybody reads on a terminal; plan.csv and plan.html have them all"""


def device_word(study: Study) -> str:
    """What an hour is an hour of: a CPU rank is no GPU."""
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
    if len(rows) <= ROWS_SHOWN:
        lines += _lines(every_trial(rows, unit, details=False))
    lines += _lines(experiments(rows, unit))
    lines.append("Hours are estimates, or the time asked for where nothing is estimated.")
    if sentences:
        lines += ["", *(f"! {sentence}" for sentence in sentences)]
    return "\n".join(lines)


def _lines(table: HtmlTable) -> list[str]:
    left = [column for column, kind in enumerate(table.kinds) if kind != "number"]
    texts = [[cell.text for cell in row] for row in table.rows]
    return [*text_table(table.columns, texts, left), "", f"{table.caption}.", ""]
