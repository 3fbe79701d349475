"""A trial over several jobs, stopped by a signal, a requeue and its walltime: the same result."""

from __future__ import annotations

import json
from pathlib import Path

from project import TINY, slurm
from test_launch_trials import comparable

# More training than fits into one job of 2 minutes; so many jobs more, where the machine is slow.
EPOCHS = 1200
RETRIES = "20"


def study(**values: object) -> dict:
    """One trial of two ranks; `values` are no part of what it is."""
    return {
        **TINY,
        "defaults": {**TINY["defaults"], "epochs": EPOCHS, "evaluate_every_epochs": 100, **values},
        "experiments": {"scaling": {"axis": "ranks", "product": {"ranks": [2]}}},
    }


def job_of(attempt: Path) -> str:
    return json.loads((attempt / "started.json").read_text())["slurm_job_id"]


def test_a_trial_goes_on_after_a_signal_a_requeue_and_its_walltime(new_project):
    stopped, whole = new_project("stopped"), new_project("whole")
    stopped.configure(study(continue_after_walltime=True, walltime_min=2))
    whole.configure(study(walltime_min=30))
    runs = [stopped.start("trials", "--retries", RETRIES), whole.start("trials")]

    # To all processes of the job, as before a preemption.
    first = stopped.wait_for_epoch(attempt=1)
    slurm("scancel", "--signal=USR1", "--full", job_of(first))
    second = stopped.wait_for_epoch(attempt=2, limit_s=300)
    assert job_of(second) != job_of(first)
    slurm("scontrol", "requeue", job_of(second))
    third = stopped.wait_for_epoch(attempt=3, limit_s=300)
    assert job_of(third) == job_of(second)

    # The third attempt runs into its walltime.
    assert [run.wait() for run in runs] == [0, 0]
    (found,), (expected,) = stopped.outcomes().values(), whole.outcomes().values()
    assert without_flags(found) == without_flags(expected)
    ends = [attempt["status"] for attempt in stopped.attempts(found["trial_id"])]
    assert len(ends) >= 4
    assert ends == ["continues"] * (len(ends) - 1) + ["completed"]
    assert not any(epoch["resumed"] for epoch in expected["epochs"])
    assert 1 <= sum(epoch["resumed"] for epoch in found["epochs"]) < len(ends)
    assert not (stopped.trials / found["trial_id"] / "checkpoint.pt").exists()


def without_flags(outcome: dict) -> dict:
    """What a resumed trial has in common with one in one piece."""
    compared = comparable(outcome)
    for epoch in compared["epochs"]:
        del epoch["resumed"]
    return compared
