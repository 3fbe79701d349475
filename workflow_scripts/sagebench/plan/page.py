"""The page of the plan: one HTML file that says what a study will take and loads nothing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from sagebench.estimate.memory import NO_FIT, UNLIKELY
from sagebench.grid.expansion import Study
from sagebench.page import as_yaml, render_page, style, svg_uri
from sagebench.plan.as_text import device_word
from sagebench.plan.decisions import model_version
from sagebench.plan.forecast import Forecaster
from sagebench.plan.frontier import frontiers, memory_frontier
from sagebench.plan.limits import hints, sentences
from sagebench.plan.rows import PlanRow, distinct, total
from sagebench.plan.tables import MARKS, every_trial, experiments
from sagebench.units import GIB, hours_text

TEMPLATE = Path(__file__).parent / "templates" / "plan.html"
ROWS_SHOWN = 1000
"""trials of the page's table; plan.csv has all"""


def render(study: Study, rows: Sequence[PlanRow], forecaster: Forecaster) -> str:
    """The page of the plan that the rows are."""
    trials = distinct(rows)
    found = total("all", trials)
    unit = device_word(study)
    verdicts = {fits: sum(row.fits == fits for row in trials) for fits in MARKS}
    with style.look():
        memory = _memory(study, rows, forecaster)
    return render_page(
        TEMPLATE,
        study=study.name,
        machine=study.site.machine,
        unit=unit,
        total=found,
        hours=hours_text,
        verdicts=verdicts,
        marks=MARKS,
        hints=hints(study, rows, lambda target: f"snakemake {target}"),
        warnings=sentences(study, rows),
        experiments=experiments(rows, unit),
        memory=memory,
        every_trial=every_trial(rows[:ROWS_SHOWN], unit, details=True),
        left_out=max(0, len(rows) - ROWS_SHOWN),
        basis=_basis(study, trials, forecaster),
        unlikely=UNLIKELY,
        configuration=as_yaml(study.configuration.complete()),
    )


def _memory(
    study: Study, rows: Sequence[PlanRow], forecaster: Forecaster
) -> list[tuple[str, str, str]]:
    """Title, caption and picture of each memory frontier."""
    pictures = []
    for frontier in frontiers(study, rows, forecaster):
        found = frontier.cells.values()
        reading = (
            "GiB that the fullest rank needs to train; of a measured trial its peak, which counts "
            f"what its allocator kept, too. The limit: {frontier.limit}."
        )
        if any(cell.fits == NO_FIT for cell in found):
            reading += " Left of the red line fits or is tight, right of it does not fit."
        if not all(cell.asked for cell in found):
            reading += (
                " Pale cells are no trials of this study: they are probed like the others, where "
                "a batch size of the same fanout is asked for that is twice or half as large."
            )
        if frontier.left_out:
            reading += f" {frontier.left_out} more fanouts and batch sizes have no room here."
        title = f"Memory frontier, engine {frontier.engine}"
        drawn = io.BytesIO()
        memory_frontier(frontier).savefig(
            drawn, format="svg", metadata={"Date": None, "Creator": None}
        )
        pictures.append((title, reading, svg_uri(drawn.getvalue())))
    return pictures


def _basis(
    study: Study, trials: Sequence[PlanRow], forecaster: Forecaster
) -> list[tuple[str, list[str]]]:
    """What the figures rest on, by topic."""
    rows, site = [row for row in trials if not row.measured], study.site
    billed = "the devices that a trial asks for are billed"
    if site.whole_nodes:
        billed = f"whole nodes of {site.devices_per_node} devices are billed"
    limits = {
        f"{row.memory_limit_bytes / GIB:.1f} GiB a rank ({row.memory_limit})"
        for row in rows
        if row.memory_limit_bytes
    }
    topics = [
        ("Times", sorted({row.time_source for row in rows if row.time_source})),
        ("Memory limit", sorted(limits)),
        ("Energy", sorted({row.energy_source for row in rows if row.energy_source})),
        ("Data sheet", [forecaster.card.data_sheet] if forecaster.card else []),
        ("Model", [model_version()] if any(row.sampled for row in rows) else []),
        ("Hours", [billed]),
    ]
    return [(topic, values) for topic, values in topics if values]
