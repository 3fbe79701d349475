"""The report: one HTML file that says everything and loads nothing."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sagebench.analysis import cells, facts, predictions
from sagebench.analysis.accounting import summary
from sagebench.analysis.captions import AXIS_NAMES, CAPTIONS, PREDICTED_MEASURED, Caption
from sagebench.analysis.columns import EPOCH_COLUMNS, SLURM_COLUMNS, TRIAL_COLUMNS
from sagebench.analysis.comparison import comparisons
from sagebench.analysis.points import among
from sagebench.analysis.published import SETTING, SOURCE, UNKNOWN
from sagebench.analysis.words import common_notes
from sagebench.errors import UserError

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Picture:
    """A figure of the page: its name, caption, and the SVG as a data URI."""

    name: str
    caption: Caption
    uri: str


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
        sections=[_section(study, trials, axis, Path(figures)) for axis in _axes(study)],
        unknown=UNKNOWN,
        comparisons=comparisons(trials),
        axis_names=AXIS_NAMES,
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
        "picture": _picture(figures, "predicted_measured", PREDICTED_MEASURED),
        "sentences": predictions.summaries(trials) + predictions.out_of_memory(trials),
        "table": data,
    }


def _axes(study: dict[str, Any]) -> list[str]:
    there = {experiment["axis"] for experiment in study["experiments"]}
    return [axis for axis in CAPTIONS if axis in there]


def _section(
    study: dict[str, Any], trials: pd.DataFrame, axis: str, figures: Path
) -> dict[str, Any]:
    experiments = [entry for entry in study["experiments"] if entry["axis"] == axis]
    return {
        "axis": axis,
        "name": AXIS_NAMES[axis],
        "experiments": [(entry, facts.configurations(trials, entry)) for entry in experiments],
        "pictures": [_picture(figures, name, caption) for name, caption in CAPTIONS[axis].items()],
        "top": facts.top_fanouts(trials) if axis == "fanout" else None,
        "notes": common_notes(among(trials, "axes", axis), axis),
    }


def _picture(figures: Path, name: str, caption: Caption) -> Picture:
    path = figures / f"{name}.svg"
    if not path.exists():
        raise UserError(f"{path} does not exist: draw the figures first (make_figures.py).")
    data = base64.b64encode(path.read_bytes()).decode()
    return Picture(name, caption, f"data:image/svg+xml;base64,{data}")
