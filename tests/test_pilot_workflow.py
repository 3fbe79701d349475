"""`snakemake pilot` on this machine, with nothing stood in for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from probed import evaluations_in, pilots_in

ROOT = Path(__file__).parents[1]
LIMIT_S = 180
STUDY = """
study: tiny
dataset: {name: pubmed, source: pubmed, split: large}
defaults: {layers: 2, fanout: [3, 2], hidden_channels: 8, accumulation: 1, epochs: 6,
           sampling_workers: 0, walltime_min: 5}
experiments:
  batch: {axis: batch_size, product: {batch_size: [256, 512]}}
  scaling: {axis: ranks, fixed: {batch_size: 256}, product: {ranks: [1, 2]}}
"""


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "a 'quoted' $HOME folder"
    folder.mkdir()
    (folder / "study.yaml").write_text(STUDY)
    return folder


def command(folder: Path) -> list[str]:
    profile = ROOT / "profiles" / "local"
    return [
        str(Path(sys.executable).parent / "snakemake"), "pilot", "--profile", str(profile),
        "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder),
        "--configfile", str(folder / "study.yaml"), "--config", f"site={profile / 'site.yaml'}",
    ]  # fmt: skip


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder)}


def run(folder: Path, *options: str) -> str:
    done = subprocess.run(
        [*command(folder), *options], env=environment(folder), text=True, timeout=LIMIT_S,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("results/pilots/local/*.json")}


def test_a_study_s_pilots_run_go_on_after_a_kill_and_are_there(project):
    first = subprocess.Popen(
        command(project), env=environment(project), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    until = time.monotonic() + LIMIT_S
    while not pilots_in(project / "results", "local") and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=LIMIT_S)
    kept = files(project)
    assert len(kept) == 1
    said = run(project)
    assert "pilot 1 of 2: pubmed-blocks-b512x1-f3.2-" in said
    assert "2 configurations measured: results/pilots/local" in said
    assert kept.items() <= files(project).items()
    assert len(pilots_in(project / "results", "local")) == 2
    assert len(evaluations_in(project / "results", "local")) == 1
    assert not (project / "results" / "trials").exists()
    done = files(project)
    assert "pilot 1 of" not in run(project)
    assert files(project) == done
