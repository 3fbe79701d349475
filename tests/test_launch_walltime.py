"""When a trial has to stop by itself."""

from __future__ import annotations

import os
import time

import pytest
from sagebench.launch.job import HAND_BACK_S, Walltime


def slurm(folder, monkeypatch, said: str) -> None:
    """A Slurm job whose scontrol says `said`."""
    command = folder / "scontrol"
    command.write_text(f"#!/bin/sh\necho '{said}'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.mark.parametrize(("asked_s", "margin_s"), [(60.0, 3.0), (600.0, 30.0), (36_000.0, 60.0)])
def test_time_is_left_for_the_outcome(monkeypatch, asked_s, margin_s):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    walltime = Walltime.of_job(asked_s, 1000.0)
    assert walltime.deadline_unix_s == 1000 + asked_s - margin_s
    assert walltime.last_resort_unix_s == 1000 + asked_s - margin_s / 2


def test_without_a_walltime_there_is_no_deadline():
    walltime = Walltime.of_job(None, 1000.0)
    assert walltime.deadline_unix_s is None
    assert walltime.last_resort_unix_s is None


def test_the_job_began_before_the_trial(tmp_path, monkeypatch):
    times = "StartTime=1970-01-01T00:16:00 EndTime=1970-01-01T00:26:00"
    slurm(tmp_path, monkeypatch, f"JobId=7 {times}")
    assert Walltime.of_job(600.0, 1000.0).end_unix_s == 26 * 60 - HAND_BACK_S


@pytest.mark.parametrize("said", ["", "JobId=7 EndTime=Unknown", "slurm_load_jobs error"])
def test_a_job_without_an_end_changes_nothing(tmp_path, monkeypatch, said):
    slurm(tmp_path, monkeypatch, said)
    assert Walltime.of_job(600.0, 1000.0).end_unix_s == 1600
