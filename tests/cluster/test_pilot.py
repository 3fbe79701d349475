"""`snakemake pilot` through Slurm and Apptainer: one job, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path

from probed import evaluations_in, pilots_in
from project import TINY, Project, slurm, wait_for
from sagebench.pilot.records import Pilot
from sagebench.records import Status

END_LIMIT_S = 300


def study() -> dict:
    """An engine of each kind, in a batch of which one runs out of memory; nothing of it is run."""
    rows = [
        {"engine": "blocks", "memory_limit_gib": None, "hidden_channels": 16},
        {"engine": "reference", "memory_limit_gib": None, "hidden_channels": 16},
        {"engine": "blocks", "memory_limit_gib": 0.02, "hidden_channels": 2048},
    ]
    experiment = {"axis": "batch_size", "fixed": {"batch_size": 512}, "list": rows}
    defaults = {key: value for key, value in TINY["defaults"].items() if key not in rows[0]}
    return {**TINY, "defaults": defaults, "experiments": {"batch": experiment}}


def test_pilots_run_as_trials_do_in_one_job_and_once(project):
    project.configure(study())
    project.run("pilot")
    pilots = pilots_in(project.results, "testbed")
    found = {(pilot.trial["engine"], pilot.status): pilot for pilot in pilots.values()}
    assert found.keys() == {
        ("blocks", Status.COMPLETED),
        ("reference", Status.COMPLETED),
        ("blocks", Status.OUT_OF_MEMORY),
    }
    for pilot in pilots.values():
        if pilot.status is Status.COMPLETED:
            assert pilot.step_s > 0 and pilot.memory.peak_host_private_bytes > 0
    early = found["blocks", Status.OUT_OF_MEMORY]
    assert early.reason.limit.kind == "memory_limit"
    assert len(evaluations_in(project.results, "testbed")) == 2
    (job,) = (job for job in project.jobs() if job.rule == "pilot")
    assert (job.partition, job.state) == ("gpu", "COMPLETED")
    for pilot in pilots.values():
        started_by_slurm(project, pilot, job.id)
    before = files(project)
    project.run("pilot")
    assert files(project) == before


def test_pilots_of_a_cancelled_job_stay_and_the_next_job_measures_the_rest(project):
    project.configure(study())
    first = project.start("pilot", "--retries", "0")
    wait_for("a pilot", lambda: pilots_in(project.results, "testbed"), END_LIMIT_S)
    kept = files(project)
    slurm("scancel", *project.waiting_or_running())
    assert first.wait() != 0
    assert len(pilots_in(project.results, "testbed")) < 3
    project.run("pilot")
    assert len(pilots_in(project.results, "testbed")) == 3
    assert kept.items() <= files(project).items()
    assert [job.state for job in project.jobs() if job.rule == "pilot"] == [
        "CANCELLED",
        "COMPLETED",
    ]


def files(project: Project) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in project.results.glob("pilots/*/*.json")}


def started_by_slurm(project: Project, pilot: Pilot, job: str) -> None:
    """By srun, in the image: with its torch, not this machine's."""
    (attempt,) = project.results.glob(f"pilots/testbed/{pilot.key}/attempts/*")
    measured = json.loads((attempt / "measured.json").read_text())
    assert measured["ranks"][0]["slurm"]["slurm_job_id"] == job
    command = (attempt / "srun.log").read_text().splitlines()[0]
    assert command.startswith("srun --nodes=1 --ntasks=1 ") and " exec " in command
