"""Accounting in the workflow: on a cluster after the trials, never a reason to fail, nowhere else.

The site says that Slurm starts the ranks, and Snakemake runs the jobs here: what is tested is when
the rule runs. What real accounting says is tested in tests/cluster.
"""

from __future__ import annotations

import csv
import json
import os
import shutil

import pytest
import yaml
from configurations import CLUSTER
from workflow_project import ROOT, Project

ACCOUNTING = "results/small/accounting.csv"
PARTIAL = "results/small/partial/accounting.csv"


@pytest.fixture
def project(tmp_path):
    """A project on a cluster whose accounting is off."""
    project = Project(tmp_path / "checkout")
    shutil.copy(
        ROOT / "workflow_scripts/collect_accounting.py", project.folder / "workflow_scripts"
    )
    (project.folder / "site.yaml").write_text(yaml.safe_dump({**CLUSTER, "device": "cpu"}))
    slurm(project, "squeue", "exit 0")
    slurm(project, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    return project


def slurm(project, name, script):
    """Let a command of Slurm's do this."""
    path = project.folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run(project, *targets):
    path = os.pathsep.join([str(project.folder / "bin"), os.environ["PATH"]])
    result = project.snakemake(*targets, "--config", "site=site.yaml", PATH=path)
    assert result.returncode == 0, result.stdout
    return result.stdout


def rows(project, path=ACCOUNTING):
    with (project.folder / path).open(newline="") as file:
        return list(csv.DictReader(file))


def begin(outcome, job_id):
    """Give a trial an attempt, as its launcher does."""
    folder = outcome.parent / "attempts" / "1"
    folder.mkdir(parents=True)
    started = {"slurm_job_id": job_id, "started_at": "2026-11-22T16:37:00+00:00"}
    (folder / "started.json").write_text(json.dumps(started))


def change(outcome):
    """Make the outcome another one; Snakemake knows one that is only newer by its checksum."""
    outcome.write_text(outcome.read_text() + " ")


def test_it_follows_the_outcomes_and_fails_nothing_and_keeps_what_it_has(project):
    assert "Accounting" in run(project)
    assert rows(project) == []
    assert "Nothing to be done" in run(project)
    project.ran("tables")
    project.ran("run_trial")

    # By now the attempts tell of jobs, and an outcome is newer; of one job Slurm knows something.
    first, *_ = outcomes = project.outcomes()
    for outcome, job_id in zip(outcomes, "789", strict=True):
        begin(outcome, job_id)
    times = "2026-11-22T16:36:48|2026-11-22T16:36:52|2026-11-22T16:38:20"
    slurm(project, "sacct", f"echo '7|COMPLETED|0:0|{times}|88|1|tb1|cpu=1,gres/gpu=4|'")
    change(first)
    run(project)
    states = {row["slurm_job_id"]: row["state"] for row in rows(project)}
    assert states == {"7": "COMPLETED", "8": "", "9": ""}
    assert project.ran("tables") == ["results/small"]
    assert project.ran("run_trial") == []

    slurm(project, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    change(first)
    run(project)
    reasons = {row["slurm_job_id"]: row["reason"] for row in rows(project)}
    off = "sacct failed: Slurm accounting storage is disabled"
    assert reasons == {"7": "", "8": off, "9": off}

    # A look at what there is has a file of its own.
    before = (project.folder / ACCOUNTING).stat().st_mtime_ns
    run(project, "partial", "--nolock")
    assert {row["reason"] for row in rows(project, PARTIAL)} == {off}
    assert (project.folder / ACCOUNTING).stat().st_mtime_ns == before


def test_on_one_machine_there_is_none(project):
    assert "accounting" not in project.snakemake("-n").stdout
    assert "accounting" in project.snakemake("-n", "--config", "site=site.yaml").stdout


def test_a_deleted_outcome_is_made_again_where_only_the_accounting_is_left(project):
    run(project)
    project.outcomes()[0].unlink()
    shutil.rmtree(project.folder / "results/small/tables")
    project.ran("run_trial")
    run(project)
    assert len(project.ran("run_trial")) == 1
