"""Paths, names and values that a shell could run: they arrive as they are, or are refused before
anything is submitted."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from project import TINY, Project

# Where Snakemake's own quotes are Python's: without an apostrophe, which is refused.
CARRIED = 'a "b" $(touch ran) `touch ran` $HOME; touch ran & | * ? [x], : # é ~ ! ^'
APOSTROPHES = "it's; touch ran & | 'x' 100 % * é"
ALL = f"{APOSTROPHES} {CARRIED}"

# Notes what reaches a rank in the container: Python imports it by itself.
SITECUSTOMIZE = """
import json, os, pathlib
if "APPTAINER_CONTAINER" in os.environ:
    values = {name: value for name, value in os.environ.items() if name.startswith("ODD_")}
    path = pathlib.Path(__file__).with_name(f"rank {os.environ['SLURM_PROCID']}.json")
    path.write_text(json.dumps(values))
"""
ODD = {
    "ODD_ALL": ALL,
    "ODD_DOLLAR": "$(touch ran)",
    "ODD_BACKTICK": "`touch ran`",
    "ODD_APOSTROPHE": "'; touch ran; '",
    "ODD_QUOTE": '"; touch ran; "',
    "ODD_BACKSLASH": "a\\nb\\",
    "ODD_LINES": "one\ntwo $(touch ran)",
    "ODD_DASH": "-rf",
}


def small_graph(path: Path) -> None:
    """A graph of 900 nodes as arrays."""
    rng = np.random.default_rng(0)
    path.parent.mkdir()
    with path.open("wb") as file:
        np.savez(
            file,
            edge_index=rng.integers(0, 900, (2, 5000)),
            x=rng.standard_normal((900, 8)).astype(np.float32),
            y=np.arange(900) % 3,
            train=np.arange(300),
            valid=np.arange(300, 600),
            test=np.arange(600, 900),
        )


def link_or_copy(source: Path, copy: Path) -> None:
    try:
        os.link(source, copy)
    except OSError:  # another file system
        shutil.copyfile(source, copy)


def test_what_a_shell_could_run_arrives_as_it_is(tmp_path, prepared):
    """A whole study, to its report."""
    image = tmp_path / f"image {ALL}.sif"
    link_or_copy(Path(prepared.site["image"]), image)
    graph = tmp_path / f"graph {ALL}" / f"-rf {ALL}.npz"
    small_graph(graph)
    bind = tmp_path / f"bind {ALL.replace(':', ',')}"  # on PYTHONPATH, which : separates
    bind.mkdir()
    (bind / "sitecustomize.py").write_text(SITECUSTOMIZE)
    results = f"results {CARRIED}"
    with Project(tmp_path / CARRIED / "checkout") as project:
        project.configure(
            {
                **TINY,
                "results": results,
                "dataset": {"name": "mine", "source": "arrays", "path": str(graph)},
                "experiments": {
                    "scaling": {"title": ALL, "axis": "ranks", "product": {"ranks": [2]}}
                },
            }
        )
        project.change_site(
            image=str(image),
            image_definition=None,
            binds=[str(bind)],
            environment={**ODD, "PYTHONPATH": str(bind)},
        )
        project.run()
        (outcome,) = (project.folder / results / "trials").glob("*/outcome.json")
        assert json.loads(outcome.read_text())["status"] == "completed"
        assert (project.folder / results / "tiny" / "report.html").exists()
    for rank in range(2):
        assert json.loads((bind / f"rank {rank}.json").read_text()) == ODD
    assert not list(tmp_path.rglob("ran"))


@pytest.fixture(scope="module")
def refusing(tmp_path_factory, prepared):
    with Project(tmp_path_factory.mktemp("refusing") / "checkout", prepared) as project:
        yield project


def refusal(project: Project, *arguments: str, **values: str) -> str:
    """What Snakemake says that runs no job and submits none."""
    project.configure({**TINY, **values})
    run = project.finish("trials", *arguments)
    assert run.returncode == 1
    assert project.jobs() == []
    assert not list(project.folder.rglob("ran"))
    (line,) = [line for line in run.said.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize("name", ["it's", "it's $(touch ran)", 'it\'s "mine"', "back\\slash"])
def test_a_name_that_would_not_arrive_is_refused(refusing, name):
    assert f"results: the path {name!r} cannot be handed to a Slurm job" in refusal(
        refusing, results=name
    )


def test_so_is_a_value_on_the_command_line(refusing):
    said = refusal(refusing, "--config", "results=it's $(touch ran)")
    assert "cannot be handed to a Slurm job" in said


def test_so_is_a_folder_that_slurm_takes_for_a_pattern(tmp_path, prepared):
    with Project(tmp_path / "100 %j" / "checkout", prepared) as project:
        assert "has a % in its name" in refusal(project)


def test_so_is_a_python_whose_path_a_shell_takes_apart(refusing, tmp_path, monkeypatch):
    (tmp_path / "my venv").symlink_to(sys.prefix)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my venv" / "bin" / "python"))
    said = refusal(refusing)
    assert f"the path of its Python, {sys.executable}, to a shell without quotes" in said


def test_so_is_a_site_that_is_not_filled_in(refusing):
    site = refusing.site
    refusing.change_site(account="p200EDIT", binds=["/project/scratch/p200EDIT"])
    try:
        said = refusal(refusing)
    finally:
        refusing.change_site(**site)
    assert "still holds the placeholder EDIT in account, binds" in said
