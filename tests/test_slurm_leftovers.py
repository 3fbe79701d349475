"""A killed Snakemake leaves its lock: the next one takes it away, and no other's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sagebench.slurm.snakemake import hold_folder

SCRIPTS = Path(__file__).parents[1] / "workflow_scripts"
LIMIT_S = 60
# Works in the folder as Snakemake does: a lock once it has read the workflow.
WORK = """
import pathlib, sys, time
from sagebench.slurm.snakemake import hold_folder
held = hold_folder(pathlib.Path())
locks = pathlib.Path(".snakemake/locks")
locks.mkdir(exist_ok=True)
locks.joinpath("0.output.lock").touch()
print("working", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process at work in the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORK], cwd=tmp_path, env={"PYTHONPATH": str(SCRIPTS)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "working\n"
    yield process
    process.kill()
    process.communicate(timeout=LIMIT_S)


def locks(folder: Path) -> list[Path]:
    return list((folder / ".snakemake/locks").glob("*.lock"))


def test_the_lock_of_a_killed_run_is_taken_away(tmp_path, other, capsys):
    other.kill()
    other.wait(LIMIT_S)
    with hold_folder(tmp_path):
        assert locks(tmp_path) == []
    assert "an earlier run here was killed" in capsys.readouterr().err


def test_the_lock_of_a_run_at_work_stays(tmp_path, other):
    for _ in range(2):  # nor does the second look mistake it
        with hold_folder(tmp_path):
            assert len(locks(tmp_path)) == 1


def test_the_lock_of_another_machine_stays(tmp_path, other):
    other.kill()
    other.wait(LIMIT_S)
    (tmp_path / ".snakemake/sagebench/in-use").write_text("login03")
    for _ in range(2):
        with hold_folder(tmp_path):
            assert len(locks(tmp_path)) == 1
