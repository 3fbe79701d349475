"""The plan's page: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sagebench.estimate.memory import UNLIKELY
from sagebench.grid.expansion import Study
from sagebench.page import as_yaml, render_page
from sagebench.plan.decisions import model_version
from sagebench.plan.forecast import Forecaster
from sagebench.plan.frontier import pictures
from sagebench.plan.limits import hints, sentences
from sagebench.plan.rows import PlanRow, Total, distinct
from sagebench.plan.tables import MARKS, device_word, every_trial, experiments
from sagebench.units import GIB, hours_text

TEMPLATE = Path(__file__).parent / "templates" / "plan.html"
ROWS_SHOWN = 1000
"""trials of the page's table; plan.csv has all"""


def render(study: Study, rows: Sequence[PlanRow], forecaster: Forecaster) -> str:
    """The page of the plan that the rows are."""
    trials, unit = distinct(rows), device_word(study)
    return render_page(
        TEMPLATE,
        study=study.name,
        machine=study.site.machine,
        unit=unit,
        total=Total("all", trials),
        hours=hours_text,
        verdicts={fits: sum(row.fits == fits for row in trials) for fits in MARKS},
        marks=MARKS,
        hints=hints(study, rows, lambda target: f"snakemake {target}"),
        warnings=sentences(study, rows),
        experiments=experiments(rows, unit),
        memory=pictures(study, rows, forecaster),
        every_trial=every_trial(rows[:ROWS_SHOWN], unit),
        left_out=max(0, len(rows) - ROWS_SHOWN),
        basis=_basis(study, trials, forecaster),
        unlikely=UNLIKELY,
        configuration=as_yaml(study.configuration.complete()),
    )


def _basis(
    study: Study, trials: Sequence[PlanRow], forecaster: Forecaster
) -> list[tuple[str, list[str]]]:
    """Basis of the estimates, by topic."""
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
