"""What a plan decides of a run, through Snakemake: a budget, trials left out, walltimes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from probed import pilot, probe
from sagebench.grid.freeze import load_study
from workflow_project import ROOT, SMALL, Project

QUICK = {"epochs": 1, "layers": 2, "fanout": [5, 5], "walltime_min": 60}
FULL = {**SMALL, "defaults": QUICK}  # predicted to take a few minutes


@pytest.fixture
def project(tmp_path, monkeypatch):
    made = Project(tmp_path / "checkout")
    monkeypatch.chdir(made.folder)  # where results lie
    return made


def predicted(project, values, out_of_memory=lambda trial: False):
    """Configure the project, make up its probe and pilots, and plan it. Returns the study.

    out_of_memory: of which trials the pilots ended so.
    """
    project.configure(values)
    study = load_study(["study.yaml"], "profiles/local/site.yaml")
    probe(study)
    ended = [name for name, request in study.requests.items() if out_of_memory(request.trial)]
    pilot(study, step_s=0.05, out_of_memory=ended)
    decide()
    return study


def decide():
    """As `make run` does before it calls Snakemake."""
    script = [sys.executable, "workflow_scripts/plan.py", "--decisions-only"]
    subprocess.run([*script, "--configfile", "study.yaml"], check=True)


def frozen(project):
    """The frozen study that the last run announced."""
    paths = (project.folder / "results/small/frozen").glob("*.json")
    return json.loads(max(paths, key=lambda path: path.stat().st_mtime_ns).read_text())


def walltimes(project):
    trials = (project.folder / "results/trials").iterdir()
    return {int((trial / "walltime.txt").read_text()) for trial in trials}


def test_a_study_over_budget_is_refused_before_its_first_job(project):
    project.configure({**FULL, "budget_node_hours": 1.5})
    decide()
    result = project.snakemake()
    assert result.returncode != 0
    assert "error: The study takes 3.00 node-hours (as asked for by walltime_min)" in result.stdout
    assert "saved" in result.stdout and "--config budget_node_hours=3" in result.stdout
    assert not project.ran("build_graph") and not (project.folder / "results/trials").exists()
    assert project.snakemake("plan").returncode == 0

    enough = "--config", "budget_node_hours=3"
    result = project.snakemake("trials", *enough)
    assert result.returncode != 0 and "is of another study, probe or pilot" in result.stdout
    assert project.snakemake("plan", *enough).returncode == 0
    result = project.snakemake("trials", *enough)
    assert result.returncode == 0, result.stdout
    project.outcomes()[0].unlink()  # what is measured costs nothing
    decide()
    assert project.snakemake("trials").returncode == 0


def test_trials_predicted_out_of_memory_are_not_run_until_they_are_asked_for(project):
    values = {**FULL, "skip_predicted_out_of_memory": True}
    full = {"memory_limit_gib": 0.1}
    values["experiments"] = {
        "full": {"axis": "batch_size", "fixed": full, "product": {"batch_size": [2048, 4096]}},
        "scaling": SMALL["experiments"]["scaling"],
    }
    study = predicted(project, values, lambda trial: trial.memory_limit_gib is not None)
    capped = [k for k, r in study.requests.items() if r.trial.memory_limit_gib]
    result = project.snakemake()
    assert result.returncode == 0, result.stdout
    assert len(project.outcomes()) == 2 and len(capped) == 2
    assert not any((project.folder / "results/trials" / trial).exists() for trial in capped)
    skipped = frozen(project)["skipped"]
    assert set(skipped) == set(capped)
    assert all(one["out_of_memory_chance"] == 1.0 for one in skipped.values())
    assert (project.folder / "results/small/tables/trials.csv").read_text() == "2 of 2"
    project.outcomes()[0].unlink()
    assert project.snakemake().returncode == 0  # any other missing outcome is made
    assert len(project.outcomes()) == 2

    plan = project.snakemake("plan")
    assert plan.returncode == 0, plan.stdout
    assert "2 trials" in plan.stdout and "not run" in plan.stdout
    alone = [sys.executable, "workflow_scripts/plan.py", "--configfile", "study.yaml"]
    assert "not run" in subprocess.check_output(alone, text=True)  # `make plan`

    result = project.snakemake("trials", "--config", "skip_predicted_out_of_memory=False")
    assert result.returncode == 0, result.stdout  # nothing left to a plan, none is asked for
    assert len(project.outcomes()) == 4
    assert "Nothing to be done" in project.snakemake("trials").stdout
    assert project.snakemake("plan").returncode == 0  # what has an outcome is skipped no more
    assert frozen(project)["skipped"] == {}


def test_without_a_probe_nothing_is_skipped_and_walltimes_are_those_asked_for(project):
    guards = {"skip_predicted_out_of_memory": True, "walltime_from_prediction": 1.5}
    project.configure({**FULL, **guards})
    decide()
    assert project.snakemake("trials").returncode == 0
    assert len(project.outcomes()) == 3 and walltimes(project) == {60}


def test_jobs_ask_for_the_predicted_time_with_a_margin(project):
    predicted(project, {**FULL, "walltime_from_prediction": 1.5, "budget_node_hours": 1.5})
    result = project.snakemake("trials")
    assert result.returncode == 0, result.stdout  # predicted, it is within the budget
    asked = walltimes(project)
    assert all(3 <= minutes < 60 for minutes in asked)
    requests = frozen(project)["requests"].values()
    assert {request["runtime_min"] for request in requests} == asked
    assert {request["walltime_min"] for request in requests} == {60}


def test_a_second_attempt_asks_for_the_walltime_in_full(project):
    predicted(project, {**FULL, "walltime_from_prediction": 1.5})
    result = project.snakemake("trials", "--retries", "1", FAIL="64")
    assert result.returncode != 0
    (failed,) = (project.folder / "results/trials").glob("*-b64x*")
    assert (failed / "walltime.txt").read_text() == "60"


def test_after_a_predicted_walltime_was_too_short_the_next_run_asks_for_it_in_full(project):
    predicted(project, {**FULL, "walltime_from_prediction": 1.5})
    assert project.snakemake("trials", FAIL="64").returncode != 0
    (failed,) = (project.folder / "results/trials").glob("*-b64x*")
    assert int((failed / "walltime.txt").read_text()) < 60
    line = {"status": "failed", "predicted_walltime_too_short": True}
    (failed / "attempts.jsonl").write_text(json.dumps(line) + "\n{}\n")
    assert project.snakemake("trials").returncode == 0
    assert (failed / "walltime.txt").read_text() == "60"


def test_predictions_are_frozen_for_the_trials_of_a_run_only(project):
    predicted(project, FULL)
    assert project.snakemake("trials").returncode == 0
    paths = sorted((project.folder / "results/trials").glob("*/prediction.json"))
    assert len(paths) == 3
    made = json.loads(paths[0].read_text())
    assert made["time"]["low_s"] <= made["time"]["epoch_s"] <= made["time"]["high_s"]
    assert made["time"]["basis"] == "measured steps" and len(made["model"]) == 10
    before = {path: path.read_text() for path in paths}
    again = paths[0].with_name("outcome.json")
    again.unlink()
    paths[0].write_text("{}")
    assert project.snakemake("trials").returncode == 0
    assert json.loads(paths[0].read_text())["time"] == made["time"]
    assert all(path.read_text() == before[path] for path in paths[1:])


def test_a_study_that_leaves_something_to_its_plan_is_not_run_without_a_fresh_one(project):
    guards = {"skip_predicted_out_of_memory": True}
    project.configure({**FULL, **guards})
    result = project.snakemake("trials")
    assert result.returncode != 0
    (said,) = [line for line in result.stdout.splitlines() if line.startswith("error")]
    assert "results/small/plan.json is not there: call `make plan`" in said
    assert not project.ran("build_graph") and not (project.folder / "results/trials").exists()

    decide()
    assert project.snakemake("trials").returncode == 0
    for path in project.outcomes():  # outcomes do not count
        path.unlink()
    assert project.snakemake("trials").returncode == 0
    project.outcomes()[0].unlink()
    probe(load_study(["study.yaml"], "profiles/local/site.yaml"))  # another probe does
    result = project.snakemake("trials")
    assert result.returncode != 0 and "is of another study, probe or pilot" in result.stdout


def test_a_dry_run_without_a_fresh_plan_says_so_and_writes_nothing(project):
    project.configure({**FULL, "budget_node_hours": 1.5})
    result = project.snakemake("-n", "trials")
    assert result.returncode == 0, result.stdout
    refused = "A run would be refused: small leaves trials, walltimes or a budget to its plan"
    assert refused in result.stdout
    assert not (project.folder / "results").exists()
    decide()
    result = project.snakemake("-n", "trials")
    assert "A run would be refused: The study takes 3.00 node-hours" in result.stdout


def test_a_plan_that_lacks_keys_is_none(project):
    project.configure({**FULL, "budget_node_hours": 5})
    decide()
    path = project.folder / "results/small/plan.json"
    plan = json.loads(path.read_text())
    del plan["skipped"]
    path.write_text(json.dumps(plan))
    result = project.snakemake("trials")
    assert result.returncode != 0 and "Traceback" not in result.stdout
    assert "call `make plan`" in result.stdout


def test_make_again_plans_before_it_runs(project):
    """What is put aside costs again: here more than the budget."""
    shutil.copy(ROOT / "Makefile", project.folder)
    (project.folder / ".venv").symlink_to(sys.prefix)
    project.configure({**FULL, "budget_node_hours": 3})
    decide()
    assert project.snakemake("trials").returncode == 0
    decide()
    project.configure({**FULL, "budget_node_hours": 2})
    command = ["make", "again", "WHERE=status=completed", "CONFIG=study.yaml"]
    command += ["--assume-old=.venv/installed", "--no-print-directory"]
    result = subprocess.run(
        command, cwd=project.folder, env=project.environment(), capture_output=True, text=True
    )
    assert result.returncode != 0
    assert "takes 3.00 node-hours" in result.stdout + result.stderr
