"""Invariant 5, with nothing stood in for: real Snakemake, real training, a rank that is killed."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from test_launch_trials import comparable

ROOT = Path(__file__).parents[1]
LIMIT_S = 180
STUDY = """
study: tiny
dataset: {name: pubmed, source: pubmed, split: large}
defaults: {layers: 2, fanout: [3, 2], hidden_channels: 8, batch_size: 256, accumulation: 1,
           epochs: 6, sampling_workers: 0, walltime_min: 5}
experiments:
  scaling: {axis: ranks, product: {ranks: [1, 2]}}
"""
ONE_TRIAL = STUDY.replace("[1, 2]", "[1]")


def command(folder: Path) -> list[str]:
    snakemake = str(Path(sys.executable).parent / "snakemake")
    return [
        snakemake, "trials", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder),
        "--profile", str(ROOT / "profiles" / "local"), "--configfile", str(folder / "study.yaml"),
        "--config", f"site={ROOT / 'profiles' / 'local' / 'site.yaml'}",
    ]  # fmt: skip


def outcomes(folder: Path) -> dict[str, dict]:
    found = [json.loads(path.read_text()) for path in folder.glob("results/trials/*/outcome.json")]
    return {outcome["trial_id"]: outcome for outcome in found}


def run(folder: Path) -> str:
    """Run the study to its end; what was said."""
    finished = subprocess.run(
        command(folder), capture_output=True, text=True, timeout=LIMIT_S, env=environment(folder)
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder)}


def new_folder(path: Path, study: str = STUDY) -> Path:
    path.mkdir()
    (path / "study.yaml").write_text(study)
    return path


def kill_snakemake_over_a_trial(folder: Path) -> None:
    """A trial runs, and the Snakemake that started it is killed."""
    with (folder / "first.txt").open("w") as said:
        first = subprocess.Popen(command(folder), stdout=said, stderr=said, env=environment(folder))
        trained(folder, "*")
        first.kill()
        first.wait(LIMIT_S)
    assert outcomes(folder) == {}


def trained(folder: Path, pattern: str) -> dict:
    """What a trial has measured, once it has done an epoch."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        for path in folder.glob(f"results/trials/{pattern}/attempts/1/measured.json"):
            measured = json.loads(path.read_text())
            if measured["epochs"]:
                return measured
        time.sleep(0.02)
    raise AssertionError("no trial got through an epoch")


def test_a_killed_rank_is_run_again_to_the_same_outcome(tmp_path):
    disturbed, undisturbed = new_folder(tmp_path / "disturbed"), new_folder(tmp_path / "calm")
    first = subprocess.Popen(
        command(disturbed), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment(disturbed),
    )  # fmt: skip
    os.kill(trained(disturbed, "*-r2-*")["ranks"][1]["pid"], signal.SIGKILL)
    said = first.communicate(timeout=LIMIT_S)[0]
    assert first.returncode != 0
    assert "rank 1 was ended by SIGKILL" in said
    kept = outcomes(disturbed)
    run(disturbed)
    run(undisturbed)
    found, expected = outcomes(disturbed), outcomes(undisturbed)
    assert len(expected) == 2
    assert {name: comparable(outcome) for name, outcome in found.items()} == {
        name: comparable(outcome) for name, outcome in expected.items()
    }
    # What was finished was not run twice.
    assert all(found[name] == outcome for name, outcome in kept.items())


def test_after_snakemake_was_killed_the_same_command_takes_the_outcome_of_its_trial(tmp_path):
    # The trial outlasts the start of Snakemake.
    folder = new_folder(tmp_path / "killed", ONE_TRIAL.replace("epochs: 6", "epochs: 30"))
    kill_snakemake_over_a_trial(folder)
    said = run(folder)
    assert "waiting for its end" in said and "completed, run by another process" in said
    (outcome,) = outcomes(folder).values()
    assert outcome["attempts"] == 1
    assert "Nothing to be done" in run(folder)


def test_after_snakemake_was_killed_over_a_store_or_a_table_the_study_goes_on(tmp_path):
    """Snakemake's marks of what it had not booked yet are put there: the moment is short."""
    folder = new_folder(tmp_path / "killed", ONE_TRIAL.replace("[3, 2]", "[3, -1]"))
    run(folder)
    (outcome,) = folder.glob("results/trials/*/outcome.json")
    marks = folder / ".snakemake" / "incomplete"
    for made in [
        *folder.glob("results/stores/*/manifest.json"),
        *folder.glob("results/*/*/mean.json"),
    ]:
        name = base64.urlsafe_b64encode(str(made.relative_to(folder)).encode()).decode()
        (marks / name).write_text("")
    before = outcome.stat().st_mtime_ns
    outcome.unlink()
    said = run(folder)
    assert "2 of 2 steps" in said  # the trial, and all of them: neither store nor table
    assert outcome.stat().st_mtime_ns != before


def test_a_trial_that_ended_well_after_snakemake_was_killed_is_not_run_again(tmp_path):
    folder = new_folder(tmp_path / "killed", ONE_TRIAL)
    kill_snakemake_over_a_trial(folder)
    deadline = time.monotonic() + LIMIT_S
    while not outcomes(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert outcomes(folder) and "Nothing to be done" in run(folder)
