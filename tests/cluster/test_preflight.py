"""`make preflight` on a real Slurm and Apptainer: all is well, and what it says where it is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from project import Project

LIMIT_S = 300
# A site of one GPU, for what shows with one rank.
SMALL = {"nodes": 1, "devices_per_node": 1, "whole_nodes": False, "partition_gpu": "shared"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, prepared) -> Iterator[Project]:
    with Project(tmp_path_factory.mktemp("preflight") / "checkout", prepared) as project:
        yield project


@pytest.fixture
def project(checkout) -> Iterator[Project]:
    """One checkout for all, with its site as it was."""
    site = checkout.site
    yield checkout
    checkout.change_site(**site)


def preflight(project: Project) -> tuple[int, list[str]]:
    """The exit code and the lines of what it printed."""
    command = [sys.executable, "workflow_scripts/preflight.py", "--profile", "profiles/testbed"]
    done = subprocess.run(
        [*command, "--configfile", "study.yaml"],
        cwd=project.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
    )
    return done.returncode, done.stdout.splitlines()


def test_a_good_cluster_is_told_in_a_table(project):
    code, lines = preflight(project)
    assert code == 0, "\n".join(lines)
    assert lines[0].startswith("checking testbed with 1, 4 and 8 ranks")
    assert [line.split()[0] for line in lines[3:]] == ["1", "4", "8"]
    assert all(line.endswith("ok") for line in lines[3:])
    record = json.loads((project.results / "preflight/testbed/8.json").read_text())
    assert [rank["node"] for rank in record["found"]] == ["tb1"] * 4 + ["tb2"] * 4
    for rank in record["found"]:
        assert rank["all_reduce_gb_per_s"] > 0
        assert abs(rank["clock_ahead_s"]) < 1
        assert rank["store"]["num_nodes"] == 19717
        assert rank["shared_memory"]["free_bytes"] > 0
        # Nothing of this study compiles, and its GPUs are pretended.
        assert (rank["compiler"], rank["contexts"]) == (None, None)
        assert rank["slurm"]["slurm_job_id"] == record["slurm_job_id"]
    assert all(job.partition == "gpu" for job in project.jobs() if job.rule == "preflight")


def problem(project: Project) -> str:
    """The one thing that is wrong with one rank."""
    code, lines = preflight(project)
    assert code == 1, "\n".join(lines)
    assert lines[-2].endswith("1 problem")
    assert lines[-1].startswith("1 rank: ")
    return lines[-1]


def test_a_bind_that_is_not_there(project):
    project.change_site(**SMALL, binds=["/gone; $(touch ran)"])
    said = problem(project)
    assert "/gone; $(touch ran) is listed under binds and does not exist on " in said
    assert "correct binds in the profile's site.yaml" in said
    assert not list(project.folder.rglob("ran"))


def test_an_image_that_is_not_there(project):
    project.change_site(**SMALL, image="gone.sif", image_definition=None)
    assert "the image gone.sif is missing: " in problem(project)


def test_an_image_that_is_none(project, tmp_path):
    (tmp_path / "text.sif").write_text("text")
    project.change_site(**SMALL, image=str(tmp_path / "text.sif"), image_definition=None)
    said = problem(project)
    assert "rank 0 did not start (exit code 255): " in said
    assert "text.sif" in said


def test_an_account_that_slurm_does_not_know(project):
    project.change_site(**SMALL, account="nobodys")
    said = problem(project)
    assert "account" in said
    assert "nobodys" in said or "Invalid account" in said


def test_ranks_that_see_only_their_own_gpu(project):
    project.change_site(**{**SMALL, "devices_per_node": 2}, srun_options=["--gpu-bind=single:1"])
    code, lines = preflight(project)
    assert code == 1
    assert lines[-1].startswith("2 ranks: every rank sees 1 of the 2 GPUs of its node's ranks: ")
    assert "srun_options: [--gpu-bind=none]" in lines[-1]


def test_a_site_that_is_not_filled_in(project):
    project.change_site(**SMALL, qos="EDIT")
    code, (said,) = preflight(project)
    assert code == 2 and "still holds the placeholder EDIT in qos" in said
