"""Two studies at the same time, in two checkouts: neither disturbs the other."""

from __future__ import annotations

import pytest
import yaml
from project import DEMO, ROOT
from test_launch_trials import comparable

# Trials of the demo, which ran alone.
STUDY = {
    **yaml.safe_load((ROOT / DEMO).read_text()),
    "experiments": {"scaling": {"axis": "ranks", "product": {"ranks": [1, 2]}}},
}
# Not whole nodes: all four trials run at once, and on the same node.
SITE = {"whole_nodes": False, "partition_gpu": "shared", "srun_options": []}


@pytest.fixture
def pair(new_project):
    """Two checkouts whose studies, and so whose trials, have the same names."""
    projects = [new_project("one"), new_project("two")]
    for project in projects:
        project.configure(STUDY)
        project.change_site(**SITE)
    return projects


def test_two_studies_at_once_come_to_what_each_alone_comes_to(pair, demo):
    runs = [project.start("trials") for project in pair]
    assert [run.wait() for run in runs] == [0, 0], "\n".join(run.said for run in runs)
    one, two = (project.outcomes() for project in pair)
    assert one.keys() == two.keys()
    assert len(one) == 2
    alone = demo.outcomes()
    for trial_id in one:
        assert one[trial_id]["attempts"] == two[trial_id]["attempts"] == 1
        assert comparable(one[trial_id]) == comparable(two[trial_id]) == comparable(alone[trial_id])
    jobs = [
        outcome["ranks"][0]["slurm"]["slurm_job_id"]
        for outcomes in (one, two)
        for outcome in outcomes.values()
    ]
    assert len(set(jobs)) == 4
    assert any(
        mine["started_at"] < other["finished_at"] and other["started_at"] < mine["finished_at"]
        for mine in one.values()
        for other in two.values()
    ), "no trial of one ran beside one of the other"
