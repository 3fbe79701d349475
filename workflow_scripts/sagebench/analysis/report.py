"""The report: one self-contained HTML file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from sagebench.analysis import comparison, facts, predictions
from sagebench.analysis.columns import EPOCH_COLUMNS, SLURM_COLUMNS, TRIAL_COLUMNS
from sagebench.analysis.figures import declared, heading, in_order
from sagebench.analysis.points import common_notes, of_axis
from sagebench.errors import UserError
from sagebench.page import as_yaml, cells, render_page, svg_uri
from sagebench.units import duration, significant

TEMPLATE = Path(__file__).parent / "templates" / "report.html"


def render(
    study: dict[str, Any],
    trials: pd.DataFrame,
    epochs: pd.DataFrame,
    not_run: pd.DataFrame,
    figures: Path,
    links: Sequence[tuple[str, str]] = (),
    accounting: pd.DataFrame | None = None,
) -> str:
    """The page. not_run: the trials that were left out. links: (name, relative address) of files
    that lie beside it. accounting: what Slurm says of the attempts, None without Slurm."""
    configuration, predicted = study.get("configuration") or {}, predictions.table(trials)
    axes = in_order(experiment["axis"] for experiment in study["experiments"])
    return render_page(
        TEMPLATE,
        study=study["study"],
        counts=facts.counts(trials),
        measured=int(trials["missing_because"].isna().sum()),
        asked=len(trials),
        what_ran=facts.what_ran(trials) or [("Nothing yet", ["No trial has an outcome."])],
        mixed=facts.mixed(trials),
        sections=[_section(study, trials, axis, figures) for axis in axes],
        published=comparison,
        comparisons=comparison.comparisons(trials),
        heading=heading,
        missing=facts.missing(trials),
        cut_short=facts.cut_short(trials),
        far_off=facts.far_off(trials, epochs),
        not_run=predictions.not_run(not_run),
        predicted=predicted,
        predictions=predictions.summaries(trials) + predictions.out_of_memory(trials),
        prediction_pictures=_pictures(figures, None) if predicted else [],
        all_trials=facts.all_trials(trials),
        accounting=None if accounting is None else accounting_summary(accounting),
        columns={
            "trials": TRIAL_COLUMNS + ([] if accounting is None else SLURM_COLUMNS),
            "epochs": EPOCH_COLUMNS,
        },
        links=links,
        command=study.get("command"),
        commits=[cells.short(commit) for commit in trials["git_commit"].dropna().unique()],
        configuration=as_yaml(configuration),
    )


def relative_links(page: str | Path, folder: str | Path, names: Sequence[str]) -> list:
    """(name, address) of the files of `folder` that exist, as seen from the page."""
    start = Path(page).absolute().parent
    return [
        (name, quote(os.path.relpath((Path(folder) / name).absolute(), start)))
        for name in names
        if (Path(folder) / name).exists()
    ]


def _section(
    study: dict[str, Any], trials: pd.DataFrame, axis: str, figures: Path
) -> dict[str, Any]:
    return {
        "axis": axis,
        "pictures": _pictures(figures, axis),
        "notes": common_notes(of_axis(trials, axis), axis),
        "top": facts.top_fanouts(trials) if axis == "fanout" else None,
        "experiments": [
            (one["title"] or one["name"], facts.configurations(trials, one))
            for one in study["experiments"]
            if one["axis"] == axis
        ],
    }


def _pictures(figures: Path, axis: str | None) -> list[tuple[str, str, str]]:
    """Title, caption and picture of the figures of an axis."""
    found = []
    for one in declared([axis] if axis else []):
        path = figures / f"{one.name}.svg"
        if one.axis == axis:
            if not path.exists():
                raise UserError(f"{path} does not exist: draw the figures first (make_figures.py).")
            found.append((one.title, one.caption, svg_uri(path.read_bytes())))
    return found


def accounting_summary(attempts: pd.DataFrame) -> tuple[list[tuple[str, str]], list[str]]:
    """What all attempts took, as Slurm says: topics with figures, and sentences on what is
    missing."""
    known = attempts[attempts["state"].notna()]
    jobs = known.drop_duplicates(["slurm_job_id", "started_at"])
    topics = [("Jobs", _jobs(jobs))] if len(jobs) else []
    allocated = known["gpu_hours_allocated"].sum()
    if allocated:
        used = known["gpu_hours_used"].sum()
        failed = known.loc[known["failed"].eq(True), "gpu_hours_allocated"].sum()
        topics += [
            ("GPU-hours used", f"{_hours(used)} of {_hours(allocated)} allocated"),
            ("By attempts that failed", f"{_hours(failed)} GPU-hours allocated"),
        ]
    elif len(jobs):
        topics += [("Node-hours", _hours((jobs["nodes"] * jobs["elapsed_s"]).sum() / 3600))]
    waits = jobs["queue_s"].dropna()
    if len(waits):
        middle, longest = duration(waits.median()), duration(waits.max())
        topics += [("Time in the queue", f"{middle} (median), {longest} at most")]
    energy = known["energy_j"].dropna()
    if len(energy):
        share = "" if len(energy) == len(known) else f" ({len(energy)} of {len(known)} attempts)"
        topics += [("Energy of the nodes", f"{significant(energy.sum() / 3.6e6)} kWh{share}")]
    elif len(jobs):
        topics += [("Energy of the nodes", "not recorded by the site")]
    return topics, _missing(attempts)


def _jobs(jobs: pd.DataFrame) -> str:
    words = jobs["state"].str.replace("_", " ").str.lower()
    return ", ".join(f"{count} {word}" for word, count in words.value_counts().items())


def _missing(attempts: pd.DataFrame) -> list[str]:
    if attempts.empty:
        return ["No attempt was recorded."]
    return [
        f"{count} of {len(attempts)} attempts have no accounting of their own: {reason}."
        for reason, count in attempts["reason"].value_counts().items()
    ]


def _hours(hours: float) -> str:
    return significant(float(hours))
