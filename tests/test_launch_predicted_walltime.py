"""A walltime that a prediction made too short is no result of the trial."""

from __future__ import annotations

import json

import pytest
from test_launch_trials import Run
from trials import endless_trial, tiny_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "tiny"
    tiny_store(folder)
    return folder


def run(tmp_path, store, **request):
    trial = endless_trial()
    study = {
        "site": {"launcher": "local", "device": "cpu", "environment": {}},
        "places": {"1": {"ranks_per_node": 1}},
        "requests": {trial.id: {"walltime_min": 60, "continues": False, **request}},
    }
    (tmp_path / "study.json").write_text(json.dumps(study))
    options = ("--walltime-min", "0.2", "--study", str(tmp_path / "study.json"))
    made = Run(tmp_path / "t", trial, store, *options)
    return made, made.finish()


def test_it_is_a_failure_that_says_what_the_next_attempt_does(tmp_path, store):
    made, result = run(tmp_path, store, runtime_min=1)
    assert result.returncode == 1
    assert "the predicted walltime of 0.2 min was too short" in result.stderr
    assert "run it again, which asks for the full 60 min" in result.stderr
    assert not (made.home / "outcome.json").exists()
    (line,) = (made.home / "attempts.jsonl").read_text().splitlines()
    assert json.loads(line)["status"] == "failed"
    assert json.loads(line)["predicted_walltime_too_short"] is True


def test_what_the_user_asked_for_stays_a_limit(tmp_path, store):
    made, result = run(tmp_path, store, runtime_min=1, walltime_min=0.2)
    assert result.returncode == 0, result.stderr
    assert made.outcome["status"] == "time_limit"
