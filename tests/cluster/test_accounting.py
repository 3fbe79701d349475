"""Slurm's own words on the test cluster: accounting and queue, and what a run makes of them."""

from __future__ import annotations

import csv
import os
import re
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from project import Project, command, slurm, wait_for
from sagebench.slurm import accounting, commands

TRIAL_ID = "pubmed-blocks-b64x1-f10.5.5-r1-s0-1e20714ac2"
END_LIMIT_S = 120
POLL_S = 2.0


@pytest.fixture
def submit(tmp_path):
    """`submit(command, *options)`: a job's id; what is left of the jobs ends with the test."""
    jobs = []

    def sbatch(wrapped: str, *options: str) -> str:
        words = ["sbatch", "--parsable", "--account=sagebench", "--qos=short", "--time=5"]
        words += [f"--output={tmp_path}/%j.log", f"--chdir={tmp_path}", *options]
        jobs.append(slurm(*words, "--wrap", wrapped).strip())
        return jobs[-1]

    yield sbatch
    slurm("scancel", *jobs)


def state(job_id: str) -> str:
    """What the queue says of a job; "" where it holds it no more."""
    found = {job.job_id: job.state for job in commands.queued_jobs([os.geteuid()])}
    return found.get(job_id, "")


def test_how_jobs_end(submit):
    held = submit("true", "--partition=cpu", "--hold")
    again = submit("sleep 3", "--partition=shared", "--gres=gpu:2", "--requeue")
    failed = submit("exit 3", "--partition=cpu")
    wait_for("the start of a job", lambda: state(again) == "RUNNING", END_LIMIT_S)
    time.sleep(1)
    slurm("scontrol", "requeue", again)
    slurm("scancel", held)
    wide = submit("srun sleep 1", "--partition=gpu", "--nodes=2", "--ntasks=2", "--gres=gpu:4")
    ids = [held, again, failed, wide]

    def ended() -> dict[str, list[accounting.Row]] | None:
        found = accounting.allocations(ids)
        last = [found[job_id][-1] for job_id in ids if job_id in found]
        # The second run of the requeued job may be told later than the end of its first.
        if len(last) < 4 or len(found[again]) < 2 or not all(map(accounting.finished, last)):
            return None
        return found

    found = wait_for("the ends of the jobs", ended, END_LIMIT_S)
    (never,), (first, second), (bad,), (good,) = (found[job_id] for job_id in ids)
    assert (never["state"], never["started_at"], never["elapsed_s"]) == ("CANCELLED", None, 0)
    assert (first["state"], second["state"]) == ("REQUEUED", "COMPLETED")
    assert first["gpus_allocated"] == 2
    assert first["finished_at"] <= second["started_at"] and second["elapsed_s"] >= 3
    assert (bad["state"], bad["exit_code"], bad["gpus_allocated"]) == ("FAILED", "3:0", None)
    assert (good["state"], good["nodes"], good["node_names"]) == ("COMPLETED", 2, "tb[1-2]")
    assert good["gpus_allocated"] == 8
    assert 0 <= good["queue_s"] < END_LIMIT_S
    ended_s = datetime.fromisoformat(good["finished_at"]).timestamp()
    assert abs(ended_s - time.time()) < END_LIMIT_S  # and not hours off: times are UTC


def test_a_trial_s_job_is_told_by_its_comment_and_its_folder(submit, tmp_path):
    comment = f"--comment={commands.COMMENT}{TRIAL_ID}"
    ours = submit("true", "--partition=cpu", "--hold", comment)
    submit("true", "--partition=cpu", "--hold", "--comment=a | b")
    submit("true", "--partition=cpu", "--hold", comment, "--chdir=/")
    (job,) = commands.of_trials(commands.queued_jobs([os.geteuid()]), tmp_path)
    assert (job.job_id, job.trial_id, job.waits) == (ours, TRIAL_ID, True)
    assert job.reason == "JobHeldUser"


def test_a_run_tells_where_it_stands_and_what_it_took(project):
    run, seen = project.start(), []
    while run.returncode is None:
        seen += [row["state"] for row in status(project)]
        time.sleep(POLL_S)
    assert run.wait() == 0, run.said
    told = [one for one, before in zip(seen, [None, *seen], strict=False) if one != before]
    assert re.fullmatch("(not_started )?(queued )?running( completed)?", " ".join(told))
    assert [row["state"] for row in status(project)] == ["completed"]

    (job,) = [job for job in project.jobs() if job.rule == "trial"]
    (row,) = read(project.results / "tiny/accounting.csv")
    assert (row["slurm_job_id"], row["state"], row["reason"]) == (job.id, "COMPLETED", "")
    assert (row["attempt_status"], row["failed"], row["node_names"]) == (
        *("completed", "false", job.nodes),
    )
    hours = float(row["elapsed_s"]) / 3600  # one rank on a node of four
    assert float(row["gpu_hours_allocated"]) == pytest.approx(4 * hours)
    assert float(row["gpu_hours_used"]) == pytest.approx(hours)

    (trial,) = read(project.results / "tiny/tables/trials.csv")
    assert (trial["slurm_job_id"], trial["slurm_state"]) == (job.id, "COMPLETED")
    assert float(trial["slurm_gpu_hours_allocated_total"]) == pytest.approx(4 * hours)
    assert "Cluster resources used</h2>" in (project.results / "tiny/report.html").read_text()


def status(project: Project) -> list[dict[str, str]]:
    """What `make status` says, for a program."""
    words = ["env", "-C", project.folder, sys.executable, "workflow_scripts/status.py"]
    words += ["--site", "profiles/testbed/site.yaml", "--configfile", "study.yaml", "--csv"]
    done = command(words)
    assert done.returncode == 0, done.stdout
    return list(csv.DictReader(done.stdout.splitlines()))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
