"""A trial's estimate as it is kept beside it, made before it runs and never from its outcome.

results/trials/<id>/prediction.json: {"format", "model", "made_at", "store_checksum", "sample":
{"batches", "nodes", "edges"} or null, "memory": {"peak_bytes", "low_bytes", "high_bytes", "parts",
"limit_bytes", "limit", "out_of_memory_chance"} or null, "time": {"epoch_s", "low_s", "high_s",
"total_s", "basis", "source", "used"} or null, "energy": {"joules", "source"} or null}
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sagebench.files import write_json
from sagebench.grid.expansion import Study
from sagebench.grid.freeze import prediction_path
from sagebench.plan.decisions import model_version
from sagebench.plan.forecast import Forecast, Forecaster

FORMAT = 1


def freeze_predictions(study: Study, trial_ids: Collection[str]) -> None:
    """Write the estimates of trials that are about to run; what was estimated of them before, goes.
    Of what was neither probed nor piloted there are none."""
    forecaster = Forecaster(study, without=trial_ids)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    head = {"format": FORMAT, "model": model_version(), "made_at": now}
    for trial_id in trial_ids:
        request, path = study.requests[trial_id], Path(prediction_path(study.results, trial_id))
        path.unlink(missing_ok=True)
        forecast = forecaster.of(request)
        if forecast.is_known:
            checksum = forecaster.probes[request.store].store_checksum
            write_json(path, {**head, "store_checksum": checksum, **document(forecast)})


def document(forecast: Forecast) -> dict[str, Any]:
    """The figures of a forecast as plain JSON types."""
    sample, memory, time = forecast.sample, forecast.memory, forecast.time
    return {
        "sample": sample
        and {"batches": sample.batches, "nodes": sample.nodes.mean, "edges": sample.edges.mean},
        "memory": None
        if forecast.out_of_memory_chance is None and memory is None
        else {**memory_figures(forecast), "parts": memory and memory.parts},
        "time": time
        and {
            "epoch_s": time.epoch_s,
            "low_s": time.low_s,
            "high_s": time.high_s,
            "total_s": forecast.total_s,
            "basis": time.basis,
            "source": time.source,
            "used": list(time.used),
        },
        "energy": None
        if forecast.energy_j is None
        else {"joules": forecast.energy_j, "source": forecast.energy_source},
    }


def memory_figures(forecast: Forecast) -> dict[str, Any]:
    """The peak, the limit and the chance to exceed it; null where only a pilot tells that."""
    memory, chance = forecast.memory, forecast.out_of_memory_chance
    return {
        "peak_bytes": memory and memory.peak_bytes,
        "low_bytes": memory and memory.low_bytes,
        "high_bytes": memory and memory.high_bytes,
        "limit_bytes": memory and memory.limit_bytes,
        "limit": forecast.memory_limit,
        "out_of_memory_chance": None if chance is None else round(chance, 4),
    }
