"""What earlier versions wrote reads to the same values; what is damaged is said."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from outcome_factory import make_outcome, make_trial
from sagebench.attempts import Attempt, Measurements, log_attempt, read_attempts, read_measurements
from sagebench.grid.trial import Trial
from sagebench.records import (
    Damaged,
    Limit,
    Outcome,
    Reason,
    Status,
    read_outcome,
    write_outcome,
)

GOLDEN = Path(__file__).parent / "golden" / "demo"
TRIALS = sorted((GOLDEN / "trials").iterdir())
MAKE_REPORT = Path(__file__).parents[1] / "workflow_scripts" / "make_report.py"


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    shutil.copytree(GOLDEN / "trials", results / "trials")
    (study,) = (GOLDEN / "frozen").glob("*.json")
    command = [sys.executable, str(MAKE_REPORT), "tables", "--study", str(study)]
    command += ["--results", str(results), "--out", str(results)]
    subprocess.run(command, check=True)
    return results / "tables"


@pytest.mark.parametrize("name", ["trials", "epochs", "not_run"])
def test_golden_tables_hold_the_same_values_in_the_same_columns(tables, name):
    golden, made = read_csv(GOLDEN / "tables" / f"{name}.csv"), read_csv(tables / f"{name}.csv")
    assert list(golden.columns) == [column for column in made.columns if column in golden.columns]
    assert golden.rows == [
        {key: as_then(key, row[key]) for key in golden.columns} for row in made.rows
    ]


def as_then(column: str, text: str) -> str:
    """The spelling of the time before `compile` was a typed column."""
    return text.lower() if column == "compile" else text


class read_csv:
    def __init__(self, path: Path) -> None:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            self.columns = reader.fieldnames or []
            self.rows = list(reader)


@pytest.mark.parametrize("folder", TRIALS, ids=lambda folder: folder.name)
def test_a_golden_trial_keeps_its_id_and_its_outcome(folder, tmp_path):
    trial = Trial.from_json(json.loads((folder / "trial.json").read_text()))
    outcome = read_outcome(folder / "outcome.json", trial.id)
    assert folder.name == trial.id == outcome.trial_id
    write_outcome(tmp_path / "outcome.json", outcome)
    assert contains(
        json.loads((tmp_path / "outcome.json").read_text()),
        json.loads((folder / "outcome.json").read_text()),
    )
    (attempt,) = read_attempts(folder)
    assert (attempt.status, attempt.attempt) == (outcome.status, outcome.attempts)
    log_attempt(tmp_path, attempt)
    assert (tmp_path / "attempts.jsonl").read_text() == (folder / "attempts.jsonl").read_text()


def contains(new, old) -> bool:
    """Whether `new` holds all of `old`; it may hold more keys."""
    if isinstance(old, dict):
        return all(key in new and contains(new[key], value) for key, value in old.items())
    if isinstance(old, list):
        return len(new) == len(old) and all(map(contains, new, old))
    return new == old


def test_keys_of_a_later_version_are_left_out(tmp_path):
    made = make_outcome(make_trial())
    made["of_2031"] = made["epochs"][0]["of_2031"] = made["timing"]["of_2031"] = 1
    path = tmp_path / "outcome.json"
    path.write_text(json.dumps(made))
    assert read_outcome(path) == Outcome.from_json(make_outcome(make_trial()))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"status": "failed"}, "unknown status 'failed'"),
        ({"schema": 2}, "not of schema 1"),
        ({"epochs": [{"epoch": 1}]}, "Epoch"),
        ({"store": "pubmed"}, "not a readable outcome"),
        ({"trial_id": "another"}, "belongs to trial another"),
    ],
)
def test_what_is_no_outcome_is_damaged(tmp_path, change, why):
    made = make_outcome(make_trial())
    path = tmp_path / "outcome.json"
    path.write_text(json.dumps({**made, **change}))
    with pytest.raises(Damaged, match=why):
        read_outcome(path, made["trial_id"])


def test_an_attempt_is_read_as_it_was_logged(tmp_path):
    reason = Reason(3, "forward", "no memory", Limit("host_memory", None, "GiB"))
    attempt = Attempt(2, "2026-03-02T08:00:00+00:00", status=Status.OUT_OF_MEMORY, reason=reason)
    log_attempt(tmp_path, attempt)
    with (tmp_path / "attempts.jsonl").open("a") as log:
        log.write('{"attempt": 3, "status": "fail')  # cut short by a crash
    (tmp_path / "attempts" / "4").mkdir(parents=True)
    (tmp_path / "attempts" / "4" / "started.json").write_text('{"attempt": 4, "pid": 7}')
    assert read_attempts(tmp_path) == [attempt, Attempt(4, pid=7)]
    assert attempt.why == "rank 3, forward: no memory"


def test_measurements_are_read_as_they_were_written(tmp_path):
    made = make_outcome(make_trial())
    measured = Measurements.from_json({**made, "ranks": [{"rank": 0}], "complete": True})
    assert read_measurements(tmp_path) == Measurements()
    measured.write(tmp_path)
    assert read_measurements(tmp_path) == measured
