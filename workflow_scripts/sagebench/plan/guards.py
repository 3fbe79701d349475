"""What predictions decide of a run: trials that are left out, and what their jobs ask for.

Nothing of what a trial computes. Imported where Snakemake parses: what predicts is only imported
where the configuration asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sagebench.attempts import read_ended_attempts
from sagebench.errors import UserError
from sagebench.grid.expansion import Request, Study
from sagebench.grid.freeze import outcome_path, prediction_path

if TYPE_CHECKING:
    from sagebench.plan.forecast import Forecast

START_UP_MIN = 2.0
"""minutes of a job beside its trial: the container's start, and writing the outcome"""


def guarded(study: Study) -> Study:
    """The study with the trials that are not run, and the runtimes that jobs ask for, where its
    configuration leaves that to predictions. What has an outcome is left as it is."""
    margin = study.configuration.walltime_from_prediction
    skips = study.configuration.skip_predicted_out_of_memory
    if margin is None and not skips:
        return study
    from sagebench.plan.forecast import Forecaster, model_version
    from sagebench.plan.record import memory_figures
    from sagebench.predict.memory import NO_FIT

    forecaster = Forecaster(study)
    requests, skipped = dict(study.requests), {}
    for trial_id, request in study.requests.items():
        outcome = Path(outcome_path(study.results, trial_id))
        if outcome.exists():
            continue
        forecast = forecaster.of(request)
        if skips and forecast.fits == NO_FIT:
            skipped[trial_id] = {"model": model_version(), **memory_figures(forecast)}
        elif margin is not None and not was_too_short(outcome.parent):
            runtime_min = runtime(request, forecast, margin)
            if runtime_min is not None:
                requests[trial_id] = replace(request, runtime_min=runtime_min)
    return replace(study, requests=requests, skipped=skipped)


def runtime(request: Request, forecast: Forecast, margin: float) -> int | None:
    """Minutes that the trial's first job asks for: margin times what is predicted, but no less than
    the end of its interval. None: its walltime."""
    if forecast.total_s is None:
        return None
    _, high = forecast.interval()
    minutes = math.ceil(max(margin, high) * forecast.total_s / 60 + START_UP_MIN)
    return minutes if minutes < request.walltime_min else None


def was_too_short(home: Path) -> bool:
    """Whether an attempt used up a walltime that a prediction had set."""
    return any(attempt.predicted_walltime_too_short for attempt in read_ended_attempts(home))


def check_budget(study: Study) -> None:
    """Raises UserError, before a run's first job, where the study is over budget_node_hours."""
    if study.configuration.budget_node_hours is None:
        return
    from sagebench.plan.budget import refusal
    from sagebench.plan.build import plan_rows

    refused = refusal(study, plan_rows(study))
    if refused:
        raise UserError(refused)


def freeze_predictions(study: Study, trial_ids: Sequence[str]) -> None:
    """Keep what is predicted of the trials that are about to run, where a store was probed; what
    was predicted of them before, goes."""
    for trial_id in trial_ids:
        Path(prediction_path(study.results, trial_id)).unlink(missing_ok=True)
    if not any(Path(study.results, "probes", f"{store}.json").exists() for store in study.stores):
        return
    from sagebench.plan.record import freeze_predictions

    freeze_predictions(study, trial_ids)
