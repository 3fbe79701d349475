"""Real Snakemake runs of a study of three trials, with stand-ins for what they run."""

from __future__ import annotations

import copy
import csv
import json
import shutil
import subprocess
import sys
import time

import pytest
from workflow_project import ROOT, SMALL, Project

GOLDEN = ROOT / "tests" / "golden" / "demo"


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "a 'quoted' $HOME `checkout`")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study that has run to the end; tests only look at it."""
    project = Project(tmp_path_factory.mktemp("finished") / "checkout")
    project.result = project.snakemake()
    assert project.result.returncode == 0, project.result.stdout
    return project


def changed(**experiments):
    values = copy.deepcopy(SMALL)
    for name, change in experiments.items():
        values["experiments"].setdefault(name, {}).update(change)
    return values


def test_a_study_runs_to_its_report_and_then_has_nothing_to_do(finished):
    assert (finished.folder / "results/small/report.html").exists()
    assert len(finished.outcomes()) == 3  # batch 128 on one rank is in both experiments
    again = finished.snakemake()
    assert "Nothing to be done" in again.stdout


def test_the_trials_of_a_former_version_are_not_run_again(project):
    """config/demo.yaml has the values that it had then."""
    shutil.copytree(GOLDEN / "trials", project.folder / "results" / "trials")
    result = project.snakemake("-n", "trials", "--configfile", "config/demo.yaml")
    assert "Nothing to be done" in result.stdout


def test_everything_that_was_run_is_frozen(finished):
    (frozen,) = (finished.folder / "results/small/frozen").glob("*.json")
    study = json.loads(frozen.read_text())
    assert study["study"] == "small"
    ids = {trial for experiment in study["experiments"] for trial in experiment["trials"]}
    for trial_id in ids:
        folder = finished.folder / "results/trials" / trial_id
        assert json.loads((folder / "trial.json").read_text())["epochs"] == 1
        assert "training" in (folder / "log.txt").read_text()


def test_the_command_that_make_called_is_frozen_and_runs_the_study_again(project):
    shutil.copy(ROOT / "Makefile", project.folder)
    (project.folder / ".venv").symlink_to(sys.prefix)
    project.snakemake("plan")  # makes neither trials nor the report, and is not noted
    (frozen,) = (project.folder / "results/small/frozen").glob("*.json")
    assert "command" not in json.loads(frozen.read_text())
    words = ["CONFIG=study.yaml", "PROFILE=profiles/local", "--assume-old=.venv/installed"]
    made = subprocess.run(
        ["make", "run", *words],
        cwd=project.folder, env=project.environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    command = json.loads(frozen.read_text())["command"]
    assert command == ".venv/bin/snakemake --profile profiles/local --configfile study.yaml"
    again = subprocess.run(
        ["bash", "-c", command],
        cwd=project.folder, env=project.environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert "Nothing to be done" in again.stdout + again.stderr


def test_snakemakes_own_report_is_made(finished):
    result = finished.snakemake("--report", "own.html")
    assert result.returncode == 0, result.stdout
    assert "loss_curves" in (finished.folder / "own.html").read_text()


def test_a_deleted_outcome_reruns_exactly_that_trial(project):
    assert project.snakemake().returncode == 0
    project.ran("run_trial")
    deleted = project.outcomes()[1]
    deleted.unlink()
    assert project.snakemake().returncode == 0
    assert project.ran("run_trial") == [str(deleted.relative_to(project.folder))]
    # ... and a rebuilt store, a moved archive or an edited plot reruns none.
    store = next((project.folder / "results/stores").glob("*/manifest.json"))
    store.touch()
    with (project.folder / "workflow_scripts/make_report.py").open("a") as plot:
        plot.write("# another colour\n")
    result = project.snakemake()
    assert result.returncode == 0, result.stdout
    assert project.ran("run_trial") == []
    assert project.ran("figures") == ["results/small"] * 3


def test_a_failed_trial_keeps_its_log_and_runs_again_and_the_others_are_not_held_up(project):
    failed = project.snakemake(FAIL="64")
    assert failed.returncode != 0
    assert len(project.outcomes()) == 2
    (left,) = [
        path.parent
        for path in (project.folder / "results/trials").glob("*/trial.json")
        if not path.with_name("outcome.json").exists()
    ]
    assert "training 64" in (left / "log.txt").read_text()
    assert (left / "attempts.jsonl").exists()
    project.ran("run_trial")
    # What is there can be looked at.
    partial = project.snakemake("partial")
    assert partial.returncode == 0, partial.stdout
    assert (project.folder / "results/small/partial/tables/trials.csv").read_text() == "3 of 4"
    assert (project.folder / "results/small/partial/report.html").exists()
    assert project.snakemake().returncode == 0
    assert len(project.ran("run_trial")) == 1


def test_changes_of_the_grid_run_only_what_is_new(project):
    assert project.snakemake().returncode == 0
    project.ran("run_trial")
    project.configure(changed(batch={"product": {"batch_size": [64, 128, 256]}}))
    assert project.snakemake().returncode == 0
    assert [path for path in project.ran("run_trial") if "b256" not in path] == []
    # Another option of one experiment; the trial that batch shared with scaling stays.
    project.configure(changed(scaling={"fixed": {"dropout": 0.1}}))
    assert project.snakemake().returncode == 0
    assert len(project.ran("run_trial")) == 2
    # What is only asked for, and not part of what is run.
    values = changed(batch={"title": "Another title"})
    values["defaults"]["walltime_min"] = 9
    values["experiments"]["scaling"]["fixed"] = {"dropout": 0.1}
    project.configure(values)
    assert project.snakemake().returncode == 0
    assert project.ran("run_trial") == []


def test_an_edit_during_a_run_changes_nothing_of_it_and_plan_and_partial_work_beside_it(project):
    hold = project.folder / "hold"
    hold.touch()
    run = project.start(WHILE_THERE=str(hold))
    started = project.folder / "results/trials"
    deadline = time.monotonic() + 60
    while not list(started.glob("*/log.txt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    frozen = {path: path.read_text() for path in started.glob("*/trial.json")}
    assert len(frozen) == 3
    project.configure(changed(batch={"product": {"batch_size": [512]}}, scaling={"seeds": [7]}))
    plan = project.snakemake("--nolock", "plan")
    assert plan.returncode == 0, plan.stdout
    partial = project.snakemake("--nolock", "partial")
    assert partial.returncode == 0, partial.stdout
    assert run.poll() is None, "the run was over before it was looked at"
    hold.unlink()
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    ran = project.ran("run_trial")
    assert len(ran) == 3 and not any("b512" in path for path in ran)
    assert all(path.read_text() == text for path, text in frozen.items())
    assert (project.folder / "results/small/tables/trials.csv").read_text() == "4 of 4"


def test_a_deleted_store_is_not_rebuilt_for_what_is_measured(project):
    assert project.snakemake().returncode == 0
    shutil.rmtree(project.folder / "results/stores")
    assert "Nothing to be done" in project.snakemake().stdout


def test_a_deleted_store_is_rebuilt_for_what_is_missing_alone(project):
    assert project.snakemake().returncode == 0
    project.ran("run_trial")
    shutil.rmtree(project.folder / "results/stores")
    project.outcomes()[0].unlink()
    assert project.snakemake().returncode == 0
    assert len(project.ran("run_trial")) == 1


def test_plan_writes_only_its_csv_and_the_frozen_study(project):
    result = project.snakemake("plan")
    assert result.returncode == 0, result.stdout
    assert "Device-hours" in result.stdout and "GPU" not in result.stdout
    rows = (project.folder / "results/small/plan.csv").read_text().splitlines()
    assert len(rows) == 1 + 4
    assert not (project.folder / "results/trials").exists()


def test_a_damaged_outcome_is_named_on_the_terminal_and_partial_goes_on_without_it(project):
    for name in ("make_report", "status"):
        shutil.copy(ROOT / f"workflow_scripts/{name}.py", project.folder / "workflow_scripts")
    assert project.snakemake("trials").returncode == 0
    path = project.outcomes()[0]
    path.write_text(path.read_text()[:100])
    named = f"{path.relative_to(project.folder)} is damaged (not a readable outcome: "
    result = project.snakemake()
    assert result.returncode != 0
    (error,) = [line for line in result.stdout.splitlines() if line.startswith(f"error: {named}")]
    remedy = "delete the outcome, and call the run again, which measures its trial once more"
    assert f": {remedy}" in error

    status = subprocess.run(
        [sys.executable, "workflow_scripts/status.py", "--configfile", "study.yaml"],
        cwd=project.folder, capture_output=True, text=True,
    )  # fmt: skip
    assert "3 trials: 1 damaged, 2 completed" in status.stdout
    partial = project.snakemake("partial")
    assert partial.returncode == 0, partial.stdout
    assert "2 of 3 trials have an outcome" in partial.stdout and named in partial.stdout
    with (project.folder / "results/small/partial/tables/trials.csv").open(newline="") as file:
        rows = {row["trial_id"]: row for row in csv.DictReader(file)}
    assert rows[path.parent.name]["status"] == "damaged"
    assert rows[path.parent.name]["missing_because"].startswith(named)
    assert sorted(row["status"] for row in rows.values()) == ["completed", "completed", "damaged"]

    path.unlink()
    result = project.snakemake()
    assert result.returncode == 0, result.stdout
    assert len(project.outcomes()) == 3


def test_again_sets_outcomes_aside_and_the_next_run_makes_them_again(project):
    assert project.snakemake().returncode == 0
    project.ran("run_trial")

    def again(*arguments):
        command = [sys.executable, "workflow_scripts/again.py", "--configfile", "study.yaml"]
        return subprocess.run(
            [*command, *arguments], cwd=project.folder, capture_output=True, text=True
        )

    nothing = again("--where", "status=diverged,experiment=batch")
    assert nothing.returncode == 2
    assert "nothing to rerun" in nothing.stderr
    assert len(project.outcomes()) == 3
    result = again("--where", "status=completed,experiment=batch")
    assert result.returncode == 0, result.stderr
    assert len(project.outcomes()) == 1
    assert len(list((project.folder / "results/trials").glob("*/superseded/1.json"))) == 2
    assert project.snakemake().returncode == 0
    assert len(project.ran("run_trial")) == 2


def test_paths_with_what_a_shell_would_run_are_only_paths(project):
    values = copy.deepcopy(SMALL)
    values["results"] = "my 'results' $(touch pwned) `touch pwned`; touch pwned"
    values["experiments"] = {"batch": {"axis": "batch_size"}}
    values["dataset"] = {"name": "own", "source": "arrays", "path": "$(touch pwned)/`x`.npz"}
    project.configure(values)
    result = project.snakemake()
    assert result.returncode == 0, result.stdout
    assert not (project.folder / "pwned").exists()
    spec = next((project.folder / values["results"] / "stores").glob("*.json"))
    assert json.loads(spec.read_text()) == values["dataset"]


def test_a_job_on_another_node_reads_what_its_run_froze(project):
    """A batch job reads the workflow anew, maybe long after the configuration was edited."""
    assert project.snakemake().returncode == 0
    outcome = project.outcomes()[0]
    outcome.unlink()
    (frozen,) = (project.folder / "results/small/frozen").glob("*.json")
    project.configure(changed(batch={"axis": "no such axis"}))
    job = ["--mode", "remote", "--target-jobs", f"trial:trial={outcome.parent.name}"]
    job += ["--cores", "1", "--force", "--nolock", "--no-hooks", "--ignore-incomplete"]
    assert project.snakemake(*job).returncode != 0
    result = project.snakemake(*job, SAGEBENCH_FROZEN_STUDY=str(frozen))
    assert result.returncode == 0, result.stdout
    assert outcome.exists()
