"""The report: one HTML file that says everything and loads nothing."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sagebench.analysis import cells, facts, predictions
from sagebench.analysis.accounting import summary
from sagebench.analysis.columns import EPOCH_COLUMNS, SLURM_COLUMNS, TRIAL_COLUMNS
from sagebench.analysis.comparison import comparisons
from sagebench.analysis.figures import HEADINGS, Declaration, declared
from sagebench.analysis.points import among
from sagebench.analysis.published import SETTING, SOURCE, UNKNOWN
from sagebench.analysis.words import common_notes
from sagebench.errors import UserError

TEMPLATES = Path(__file__).parent / "templates"


def render(
    study: dict[str, Any],
    trials: pd.DataFrame,
    epochs: pd.DataFrame,
    figures: str | Path,
    links: Sequence[tuple[str, str]] = (),
    accounting: pd.DataFrame | None = None,
    not_run: pd.DataFrame | None = None,
) -> str:
    """The page. `links` are (name, relative address) of files that lie beside it; `accounting` is
    what Slurm says of the attempts, None on a machine without Slurm; `not_run` are the trials that
    were left out."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    configuration = study.get("configuration") or {}
    counts = facts.counts(trials)
    measured = int(trials["missing_because"].isna().sum())
    return environment.get_template("report.html").render(
        study=study["study"],
        style=(TEMPLATES / "report.css").read_text(),
        script=(TEMPLATES / "report.js").read_text(),
        counts=counts,
        measured=measured,
        asked=len(trials),
        what_ran=facts.what_ran(trials),
        mixed=facts.mixed(trials),
        sections=[
            _section(study, trials, axis, Path(figures))
            for axis in HEADINGS
            if axis in {experiment["axis"] for experiment in study["experiments"]}
        ],
        unknown=UNKNOWN,
        comparisons=comparisons(trials),
        headings=HEADINGS,
        source=SOURCE,
        setting=SETTING,
        missing=facts.missing(trials),
        cut_short=facts.cut_short(trials),
        far_off=facts.far_off(trials, epochs),
        not_run=None if not_run is None else predictions.not_run(not_run),
        predictions=_predictions(trials, Path(figures)),
        all_trials=facts.all_trials(trials),
        accounting=None if accounting is None else summary(accounting),
        columns=[
            ("trials", TRIAL_COLUMNS + ([] if accounting is None else SLURM_COLUMNS)),
            ("epochs", EPOCH_COLUMNS),
        ],
        links=links,
        command=study.get("command"),
        commits=[cells.short(commit) for commit in trials["git_commit"].dropna().unique()],
        configuration=yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True),
    )


def relative_links(page: str | Path, folder: str | Path, names: Sequence[str]) -> list:
    """(name, address) of the files of `folder` that exist, as seen from the page."""
    start = Path(page).absolute().parent
    return [
        (name, quote(os.path.relpath((Path(folder) / name).absolute(), start)))
        for name in names
        if (Path(folder) / name).exists()
    ]


def _predictions(trials: pd.DataFrame, figures: Path) -> dict[str, Any] | None:
    """What the section on predictions holds; None where no trial was predicted."""
    data = predictions.table(trials)
    if data is None:
        return None
    return {
        "pictures": _pictures(figures, None),
        "sentences": predictions.summaries(trials) + predictions.out_of_memory(trials),
        "table": data,
    }


def _section(
    study: dict[str, Any], trials: pd.DataFrame, axis: str, figures: Path
) -> dict[str, Any]:
    experiments = [entry for entry in study["experiments"] if entry["axis"] == axis]
    return {
        "axis": axis,
        "name": HEADINGS[axis],
        "experiments": [(entry, facts.configurations(trials, entry)) for entry in experiments],
        "pictures": _pictures(figures, axis),
        "top": facts.top_fanouts(trials) if axis == "fanout" else None,
        "notes": common_notes(among(trials, "axes", axis), axis),
    }


def _pictures(figures: Path, axis: str | None) -> list[tuple[Declaration, str]]:
    """The figures of an axis, each with its SVG as a data URI."""
    return [(one, _uri(figures / f"{one.name}.svg")) for one in declared() if one.axis == axis]


def _uri(path: Path) -> str:
    if not path.exists():
        raise UserError(f"{path} does not exist: draw the figures first (make_figures.py).")
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"
