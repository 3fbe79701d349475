"""Cost keys: which trial values affect which cost, and the keys of probes and pilots.

Standard library only: Snakemake reads it where it parses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sagebench.grid.trial import FIELD_NAMES, Trial, digest

STEP, PILOT, EVALUATION, EPOCH = 1, 2, 4, 8
"""costs: a recorded step, on one graph store and one placement; a measured micro-step; a measured
validation and test; an epoch of a whole trial"""
TRAINING = PILOT | EPOCH
MEASURED = PILOT | EVALUATION | EPOCH

CHANGES: Mapping[str, tuple[int, Any]] = {
    "dataset": (MEASURED, None),  # its store stands for it
    "sampler": (MEASURED, None),  # of a recorded step its law stands for it
    "dropout": (STEP | TRAINING, 0.0),
    "batch_size": (STEP | TRAINING, 1),
    "accumulation": (TRAINING, 1),
    "ranks": (EPOCH, 1),
    "threads_per_rank": (MEASURED, None),
    "sampling_workers": (MEASURED, None),
    "epochs": (0, 1),
    "optimizer": (TRAINING, "adam"),
    "learning_rate": (0, 0.001),
    "learning_rate_scaling": (0, "none"),
    "evaluate_every_epochs": (0, 1),
    "patience_evaluations": (0, None),
    "validation": (EVALUATION | EPOCH, "full"),
    "phase_window_steps": (0, 0),
    "seed": (0, 0),
    "precision": (STEP | TRAINING, "fp32"),  # evaluation is float32
    "device": (MEASURED, None),
    "machine": (MEASURED, None),
    "memory_limit_gib": (MEASURED, None),
    "placement": (MEASURED, None),  # where it was chosen to be stands for it
    "compile": (TRAINING, False),
    "sampled_test_nodes": (EVALUATION | EPOCH, None),
    "profile_steps": (0, 0),
}
"""what a value changes, and what stands for it in the key of a measurement that it does not change;
NEVER EDIT the latter, keys are made with it. A value that is not listed changes every cost."""

WINDOW_PART = "window.json"
EVALUATION_PART = "evaluation.json"
"""what a pilot's rank leaves in its attempt's folder: the values of a `Pilot` that it measured"""
STEPS_OF_OLD: tuple[Any, ...] = ("sage", {}, "minibatch", "uniform")
"""values that all steps had before there were others"""


def neutral(trial: Trial, costs: int) -> Trial:
    """The trial without what changes none of `costs`."""
    without = {name: value for name, (changed, value) in CHANGES.items() if not changed & costs}
    return replace(trial, **without)


def pilot_key(trial: Trial, store_checksum: str) -> str:
    """The name of the trial's pilot: readable values and a digest, [A-Za-z0-9._-]+."""
    readable = (
        f"{trial.dataset['name']}-{trial.engine}-b{trial.batch_size}x{trial.accumulation}"
        f"-f{trial.fanout.readable}"
    )[:80]
    return f"{readable}-{_digest(neutral(trial, PILOT), store_checksum)}"


def evaluation_key(trial: Trial, store_checksum: str) -> str:
    """The name of the record of the trial's validation and test."""
    evaluated = neutral(trial, EVALUATION)
    if not trial.samples_where_placed:  # all alike: they leave sampling to PyG
        evaluated = replace(evaluated, engine="reference")
    return f"evaluation-{_digest(evaluated, store_checksum)}"


def _digest(trial: Trial, store_checksum: str) -> str:
    return digest({"trial": trial.identity(), "store": store_checksum}, 10)


def epoch_key(trial: Trial, store_checksum: str) -> str:
    """Digits that only trials share which differ in nothing that an epoch's time depends on."""
    return digest([neutral(trial, EPOCH).identity(), store_checksum], 16)


def deciding_values(trial: Trial) -> dict[str, Any]:
    """Those that a recorded step depends on, as JSON has them."""
    values = trial.to_json()
    kept = {name: values[name] for name in FIELD_NAMES if CHANGES.get(name, (STEP,))[0] & STEP}
    young = {name: kept.pop(name) for name in ("model", "options", "method")}
    young["law"] = trial.law
    # As if they were not there: so are the steps in probes that are older than they.
    young = {name: value for name, value in young.items() if value not in STEPS_OF_OLD}
    return {**kept, **young, "dropout": trial.dropout > 0}


def step_name(values: Mapping[str, Any], placement: str) -> str:
    """The key of a recorded step in a probe."""
    return digest({**values, "placement": placement}, 12)
