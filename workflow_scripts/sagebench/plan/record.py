"""A trial's prediction as it is kept beside it, made before it runs and never from its outcome.

results/trials/<id>/prediction.json: {"format", "model", "made_at", "store_checksum", "sample":
{"batches", "sampled", "nodes", "edges"}, "memory": {"peak_bytes", "low_bytes", "high_bytes",
"parts", "limit_bytes", "limit", "out_of_memory_chance"} or null, "time": {"epoch_s", "low_s",
"high_s", "total_s", "phases", "source", "used"} or null, "energy": {"joules", "source"} or null}
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sagebench.files import write_json
from sagebench.grid.expansion import Study
from sagebench.grid.freeze import prediction_path
from sagebench.plan.forecast import Forecast, Forecaster, model_version

FORMAT = 1


def freeze_predictions(study: Study, trial_ids: Iterable[str]) -> None:
    """Write the predictions of trials that are about to run; what was not probed has none."""
    trial_ids = list(trial_ids)
    forecaster = Forecaster(study, without=trial_ids)
    if not forecaster.probes:
        return
    model, now = model_version(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    for trial_id in trial_ids:
        request = study.requests[trial_id]
        forecast = forecaster.of(request)
        if forecast.sample is None:
            continue
        checksum = forecaster.probes[request.store].store_checksum
        head = {"format": FORMAT, "model": model, "made_at": now, "store_checksum": checksum}
        path = Path(prediction_path(study.results, trial_id))
        write_json(path, {**head, **document(forecast)})


def document(forecast: Forecast) -> dict[str, Any]:
    """The figures of a forecast as plain JSON types."""
    sample, memory, time = forecast.sample, forecast.memory, forecast.time
    return {
        "sample": sample
        and {
            "batches": sample.batches,
            "sampled": sample.sampled,
            "nodes": sample.nodes.mean,
            "edges": sample.edges.mean,
        },
        "memory": memory
        and {
            **memory_figures(forecast),
            "parts": {name: round(size) for name, size in memory.parts.items()},
        },
        "time": time
        and {
            "epoch_s": time.epoch_s,
            "low_s": time.low_s,
            "high_s": time.high_s,
            "total_s": forecast.total_s,
            "phases": dict(time.phases),
            "source": time.source,
            "used": list(time.used),
        },
        "energy": None
        if forecast.energy_j is None
        else {"joules": forecast.energy_j, "source": forecast.energy_source},
    }


def memory_figures(forecast: Forecast) -> dict[str, Any]:
    """The peak, the limit and the chance to exceed it."""
    limit, chance = forecast.memory_limit_bytes, forecast.out_of_memory_chance
    low, peak, high = forecast.peak()
    return {
        "peak_bytes": round(peak),
        "low_bytes": round(low),
        "high_bytes": round(high),
        "limit_bytes": None if limit is None else round(limit),
        "limit": forecast.memory_limit,
        "out_of_memory_chance": None if chance is None else round(chance, 4),
    }
