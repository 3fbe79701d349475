"""What jobs really ask for and are given, where a site gives out parts of its nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from project import TINY, Project, slurm

CPUS = 16  # of a rank, at every width
STUDY = {**TINY, "experiments": {"scaling": {"axis": "ranks", "product": {"ranks": [1, 2]}}}}
# A site of whole nodes: the other tests.
SHARED = {"whole_nodes": False, "partition_gpu": "shared", "srun_options": []}
ONE_DEVICE = {**SHARED, "devices_per_node": 1, "cpus_per_node": CPUS, "machine": "single"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory, prepared) -> Iterator[Project]:
    """A project with trials of one and two ranks on a shared node."""
    with Project(tmp_path_factory.mktemp("geometry") / "checkout", prepared) as project:
        project.configure(STUDY)
        project.change_site(**SHARED)
        project.run("trials")
        yield project


def tres(job: str, field: str) -> dict[str, str]:
    """What sacct says of a job or step, by resource."""
    said = slurm("sacct", "-n", "-P", "-j", job, "-o", f"JobID,{field}")
    row = next(line for line in said.splitlines() if line.split("|")[0] == job)
    return dict(entry.split("=") for entry in row.split("|")[1].split(","))


def record_of(project: Project, ranks: int) -> dict[str, Any]:
    path = project.results / "preflight" / project.site["machine"] / f"{ranks}.json"
    return json.loads(path.read_text())


def check(project: Project, *widths: int) -> None:
    """Preflights of these widths, which see what a trial's ranks see."""
    machine = project.site["machine"]
    paths = [f"results/preflight/{machine}/{ranks}.json" for ranks in widths]
    project.run(*paths, "--forcerun", "preflight")
    for ranks in widths:
        assert record_of(project, ranks)["problems"] == []


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_trial_asks_for_its_share_of_a_node(shared, ranks):
    processes = shared.outcome(ranks=ranks)["ranks"]
    job = processes[0]["slurm"]["slurm_job_id"]
    for field in ("ReqTRES", "AllocTRES"):
        found = tres(job, field)
        assert (found["node"], found["cpu"]) == ("1", str(CPUS * ranks))
        assert found["gres/gpu"] == str(ranks)
    # The step of the ranks has all of it, also inside the step that the plugin makes of one task.
    step = f"{job}.{processes[0]['slurm']['slurm_step_id']}"
    found = tres(step, "AllocTRES")
    assert (found["node"], found["cpu"]) == ("1", str(CPUS * ranks))
    assert found["gres/gpu"] == str(ranks)


def test_ranks_of_a_shared_node_see_the_gpus_of_their_job(shared):
    check(shared, 1, 2)
    for ranks in (1, 2):
        found = record_of(shared, ranks)["found"]
        visible = {rank["visible_devices"] for rank in found}
        assert [len(devices.split(",")) for devices in visible] == [ranks]
        assert [rank["slurm"]["slurm_localid"] for rank in found] == [*map(str, range(ranks))]


def test_nodes_of_one_device(shared):
    shared.change_site(**ONE_DEVICE)
    check(shared, 1, 2)
    record = record_of(shared, 2)
    assert [rank["node"] for rank in record["found"]] == ["tb1", "tb2"]
    assert [len(rank["visible_devices"].split(",")) for rank in record["found"]] == [1, 1]
    found = tres(record["slurm_job_id"], "AllocTRES")
    assert (found["node"], found["cpu"], found["gres/gpu"]) == ("2", str(2 * CPUS), "2")
