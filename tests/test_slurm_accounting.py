"""A row an attempt: what Slurm's accounting says of it, or why it says nothing."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest
from sagebench.slurm import accounting
from sagebench.slurm.accounting import COLUMNS, TrialJob, as_csv, collect, read_rows
from sagebench.slurm.commands import NoAnswer

HOUR = 3600
BEGIN_S = 1795365408.0  # 2026-11-22T16:36:48 UTC


def iso(after_s):
    return datetime.fromtimestamp(BEGIN_S + after_s, timezone.utc).isoformat()


def ran(job_id="7", start=0, end=HOUR, state="COMPLETED", **values):
    """An allocation of two whole nodes, from `start` to `end` seconds after BEGIN_S."""
    return {
        "slurm_job_id": job_id,
        "state": state,
        "exit_code": "0:0",
        "submitted_at": iso(start - 60),
        "started_at": iso(start),
        "finished_at": None if end is None else iso(end),
        "elapsed_s": (end or HOUR) - start,
        "queue_s": 60,
        "nodes": 2,
        "node_names": "tb[1-2]",
        "gpus_allocated": 8,
        "energy_j": 5e6,
        **values,
    }


@pytest.fixture
def trial(tmp_path):
    (tmp_path / "a-trial").mkdir()
    return TrialJob(tmp_path / "a-trial", ranks=6, gpus=None)


@pytest.fixture
def slurm(monkeypatch):
    """What sacct is going to say, and what it was asked: slurm.known, slurm.asked."""

    said = SimpleNamespace(known={}, reason=None, asked=[])

    def allocations(job_ids):
        ids = sorted(set(job_ids))
        said.asked.append(ids)
        if said.reason:
            raise NoAnswer(said.reason)
        return {one: said.known[one] for one in ids if one in said.known}

    monkeypatch.setattr(accounting, "allocations", allocations)
    return said


def attempt(trial, number, after_s=5, job_id="7", status="completed"):
    """An attempt that began so long after BEGIN_S; status None: it noted no end."""
    folder = trial.folder / "attempts" / str(number)
    folder.mkdir(parents=True)
    started = {"attempt": number, "started_at": iso(after_s), "slurm_job_id": job_id}
    (folder / "started.json").write_text(json.dumps(started))
    if status is not None:
        with (trial.folder / "attempts.jsonl").open("a") as log:
            log.write(json.dumps({**started, "status": status}) + "\n")


def test_what_an_attempt_took(trial, slurm):
    attempt(trial, 1)
    slurm.known = {"7": [ran()]}
    (row,) = collect([trial])
    assert (row["trial_id"], row["attempt"], row["attempt_status"]) == ("a-trial", 1, "completed")
    assert (row["state"], row["elapsed_s"], row["queue_s"]) == ("COMPLETED", HOUR, 60)
    assert (row["nodes"], row["node_names"], row["gpus_allocated"]) == (2, "tb[1-2]", 8)
    assert (row["gpu_hours_allocated"], row["gpu_hours_used"], row["energy_j"]) == (8, 6, 5e6)
    assert row["submitted_at"] == "2026-11-22T16:35:48+00:00"
    assert (row["failed"], row["reason"]) == (False, None)


def test_each_attempt_has_the_allocation_that_it_began_in(trial, slurm):
    attempt(trial, 1, 5, status="failed")
    attempt(trial, 2, 2 * HOUR + 5, status=None)
    attempt(trial, 3, 4 * HOUR, job_id="9")
    first, second = ran(state="REQUEUED"), ran(start=2 * HOUR, end=3 * HOUR, state="NODE_FAIL")
    years_ago = ran(start=-9000 * HOUR, end=-8999 * HOUR, state="OUT_OF_MEMORY")
    slurm.known = {"7": [years_ago, first, second], "9": [ran("9", 4 * HOUR, 5 * HOUR)]}
    rows = collect([trial])
    assert [row["state"] for row in rows] == ["REQUEUED", "NODE_FAIL", "COMPLETED"]
    assert [row["failed"] for row in rows] == [True, True, False]
    assert [row["slurm_job_id"] for row in rows] == ["7", "7", "9"]


def test_a_trial_that_goes_on_in_the_next_job_has_not_failed(trial, slurm):
    attempt(trial, 1, status="continues")
    slurm.known = {"7": [ran()]}
    assert [row["failed"] for row in collect([trial])] == [False]


def test_what_still_runs_has_not_failed(trial, slurm):
    attempt(trial, 1, status=None)
    slurm.known = {"7": [ran(end=None, state="RUNNING")]}
    assert [row["failed"] for row in collect([trial])] == [False]


def test_a_job_whose_end_slurm_has_not_noted_has_no_hours_yet(trial, slurm):
    attempt(trial, 1)
    slurm.known = {"7": [ran(end=None, state="RUNNING")]}
    (row,) = collect([trial])
    assert row["gpu_hours_allocated"] is None
    assert row["reason"].startswith("Slurm has not recorded the end of the job yet")


def test_two_attempts_in_one_job_have_no_share_of_their_own(trial, slurm):
    attempt(trial, 1, 5, status="failed")
    attempt(trial, 2, 500)
    slurm.known = {"7": [ran()]}
    for row in collect([trial]):
        assert row["state"] == "COMPLETED"
        assert row["gpu_hours_allocated"] is row["energy_j"] is None
        assert row["reason"] == "its job ran 1 other attempts: no share is its own"


@pytest.mark.parametrize(
    ("job_id", "reason", "said"),
    [
        ("7", "sacct is not installed here", "sacct is not installed here"),
        ("7", None, "Slurm's accounting knows no such job"),
        (None, None, "no Slurm job ran it"),
    ],
)
def test_without_accounting_the_row_says_why(trial, slurm, job_id, reason, said):
    attempt(trial, 1, job_id=job_id)
    slurm.reason = reason
    (row,) = collect([trial])
    assert row["reason"] == said
    assert row["state"] is row["gpu_hours_allocated"] is None


def test_where_slurm_counts_no_gpus_the_site_s_word_holds(trial, slurm):
    attempt(trial, 1)
    slurm.known = {"7": [ran(gpus_allocated=None)]}
    (row,) = collect([trial])
    assert row["gpus_allocated"] is row["gpu_hours_used"] is None
    (row,) = collect([TrialJob(trial.folder, ranks=2, gpus=4)])
    assert (row["gpu_hours_allocated"], row["gpu_hours_used"]) == (4, 2)


def test_what_slurm_has_forgotten_stays_and_is_not_asked_for_again(trial, slurm, tmp_path):
    attempt(trial, 1, status="failed")
    slurm.known = {"7": [ran(state="FAILED", energy_j=1234567.5)]}
    path = tmp_path / "accounting.csv"
    path.write_text(as_csv(collect([trial])))
    before = path.read_text()
    attempt(trial, 2, 2 * HOUR, job_id="8")
    slurm.known, slurm.asked = {"8": [ran("8", 2 * HOUR, 3 * HOUR)]}, []
    path.write_text(as_csv(collect([trial], read_rows(path))))
    assert slurm.asked == [["8"]]
    assert path.read_text().startswith(before)
    assert [row["state"] for row in read_rows(path)] == ["FAILED", "COMPLETED"]


def test_what_was_not_final_is_asked_for_again(trial, slurm, tmp_path):
    attempt(trial, 1)
    path = tmp_path / "accounting.csv"
    for answer, state in (
        ({}, ""),
        ({"7": [ran(end=None, state="RUNNING")]}, "RUNNING"),
        ({"7": [ran()]}, "COMPLETED"),
    ):
        slurm.known = answer
        path.write_text(as_csv(collect([trial], read_rows(path))))
        assert [row["state"] for row in read_rows(path)] == [state]


def test_the_csv_keeps_separators_and_has_no_rows_for_no_attempts(trial):
    assert list(csv.reader(io.StringIO(as_csv([])))) == [COLUMNS]
    row = dict.fromkeys(COLUMNS) | {"node_names": "tb[1,3]", "failed": True, "energy_j": 0.1}
    (read,) = csv.DictReader(io.StringIO(as_csv([row])))
    assert (read["node_names"], read["failed"], read["energy_j"]) == ("tb[1,3]", "true", "0.1")


def test_a_file_of_another_version_is_made_anew(tmp_path):
    assert read_rows(tmp_path / "missing.csv") == []
    (tmp_path / "old.csv").write_text("trial_id,state\na,COMPLETED\n")
    assert read_rows(tmp_path / "old.csv") == []
