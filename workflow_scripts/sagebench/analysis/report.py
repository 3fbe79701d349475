"""The report: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from sagebench.analysis import comparison, facts, unseen
from sagebench.analysis.columns import EPOCH_COLUMNS, SLURM_COLUMNS, TRIAL_COLUMNS
from sagebench.analysis.figures import declared, heading, in_order
from sagebench.analysis.points import common_notes, of_axis
from sagebench.errors import UserError
from sagebench.page import as_yaml, cells, render_page, svg_uri
from sagebench.units import duration, significant

PREDICTIONS = "predicted_measured"
"""the figure that stands with the table of predictions"""
TEMPLATE = Path(__file__).parent / "templates" / "report.html"


def render(
    study: dict[str, Any],
    trials: pd.DataFrame,
    epochs: pd.DataFrame,
    not_run: pd.DataFrame,
    new_nodes: pd.DataFrame,
    folder: Path,
    accounting: pd.DataFrame | None = None,
) -> str:
    """The page. not_run: the trials that were left out. new_nodes: the times that nodes were
    embedded. folder: where the page will lie, beside
    tables/ and figures/. accounting: what Slurm says of the attempts, None without Slurm."""
    predicted = comparison.predictions(trials)
    files = [f"{table}.{kind}" for table in ("trials", "epochs") for kind in ("csv", "parquet")]
    return render_page(
        TEMPLATE,
        study=study["study"],
        counts=facts.counts(trials),
        measured=int(trials["missing_because"].isna().sum()),
        asked=len(trials),
        what_ran=facts.what_ran(trials) or [("Nothing yet", ["No trial has an outcome."])],
        mixed=facts.mixed(trials),
        sections=[
            {
                "axis": axis,
                "pictures": _pictures(folder, axis),
                "notes": common_notes(of_axis(trials, axis), axis),
                "top": facts.top_fanouts(trials) if axis == "fanout" else None,
                "unseen": _unseen(trials, new_nodes) if axis == unseen.AXIS else None,
                "experiments": [
                    (one["title"] or one["name"], facts.configurations(trials, one))
                    for one in study["experiments"]
                    if one["axis"] == axis
                ],
            }
            for axis in axes_of(study)
        ],
        published=comparison,
        comparisons=comparison.comparisons(trials),
        heading=heading,
        missing=facts.missing(trials),
        cut_short=facts.cut_short(trials),
        far_off=facts.far_off(trials, epochs),
        not_run=comparison.not_run(not_run),
        predicted=predicted,
        predictions=comparison.prediction_errors(trials) + comparison.out_of_memory(trials),
        prediction_pictures=(
            _pictures(folder, None, lambda name: name == PREDICTIONS) if predicted else []
        ),
        pictures=_pictures(folder, None, lambda name: name != PREDICTIONS),
        all_trials=facts.all_trials(trials),
        accounting=None if accounting is None else accounting_summary(accounting),
        columns={
            "trials": TRIAL_COLUMNS + ([] if accounting is None else SLURM_COLUMNS),
            "epochs": EPOCH_COLUMNS,
        },
        files=[name for name in files if (folder / "tables" / name).exists()],
        command=study.get("command"),
        commits=[cells.short(commit) for commit in trials["git_commit"].dropna().unique()],
        configuration=as_yaml(study.get("configuration") or {}),
    )


def _unseen(trials: pd.DataFrame, new_nodes: pd.DataFrame) -> dict[str, Any] | None:
    """Accuracies, times and what was found; None where no node is unseen."""
    if trials["setting"].isna().all():
        return None
    return {
        "tables": [unseen.accuracy_table(trials), unseen.time_table(trials, new_nodes)],
        "findings": unseen.findings(trials, new_nodes),
    }


def axes_of(study: dict[str, Any]) -> list[str]:
    """Axes of the study's experiments, in the order of the report."""
    return in_order(experiment["axis"] for experiment in study["experiments"])


def _pictures(
    folder: Path, axis: str | None, wanted: Callable[[str], bool] = lambda name: True
) -> list[tuple[str, str, str]]:
    """Title, caption and picture of the figures of an axis; without one, of all trials."""
    found = []
    for one in declared([axis] if axis else []):
        path = folder / "figures" / f"{one.name}.svg"
        if one.axis == axis and wanted(one.module):
            if not path.exists():
                raise UserError(
                    f"{path} does not exist: draw the figures first (make_report.py figures)."
                )
            found.append((one.title, one.caption, svg_uri(path.read_bytes())))
    return found


def accounting_summary(attempts: pd.DataFrame) -> tuple[list[tuple[str, str]], list[str]]:
    """Costs of all attempts, as Slurm says: topics with figures, and sentences on what is
    missing."""
    known = attempts[attempts["state"].notna()]
    jobs = known.drop_duplicates(["slurm_job_id", "started_at"])
    states = jobs["state"].str.replace("_", " ").str.lower().value_counts()
    waits, energy = jobs["queue_s"].dropna(), known["energy_j"].dropna()
    topics = []
    if len(jobs):
        topics += [("Jobs", ", ".join(f"{count} {state}" for state, count in states.items()))]
    if allocated := known["gpu_hours_allocated"].sum():
        used = significant(known["gpu_hours_used"].sum())
        failed = known.loc[known["failed"].eq(True), "gpu_hours_allocated"].sum()
        topics += [
            ("GPU-hours used", f"{used} of {significant(allocated)} allocated"),
            ("By attempts that failed", f"{significant(failed)} GPU-hours allocated"),
        ]
    elif len(jobs):
        hours = (jobs["nodes"] * jobs["elapsed_s"]).sum() / 3600
        topics += [("Node-hours", significant(hours))]
    if len(waits):
        middle, longest = duration(waits.median()), duration(waits.max())
        topics += [("Time in the queue", f"{middle} (median), {longest} at most")]
    if len(energy):
        share = "" if len(energy) == len(known) else f" ({len(energy)} of {len(known)} attempts)"
        topics += [("Energy of the nodes", f"{significant(energy.sum() / 3.6e6)} kWh{share}")]
    elif len(jobs):
        topics += [("Energy of the nodes", "not recorded by the site")]
    missing = [
        f"{count} of {len(attempts)} attempts have no accounting of their own: {reason}."
        for reason, count in attempts["reason"].value_counts().items()
    ]
    return topics, missing if len(attempts) else ["No attempt was recorded."]
