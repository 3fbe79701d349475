"""The demo study on the cluster: plugin, srun and Apptainer, over one and two nodes."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from project import DEMO

# Sums of the same float32 terms in another order: over ranks, or over micro-batches.
SAME_LOSS = 1e-5


def test_every_trial_is_measured_on_the_testbed_in_the_image(demo):
    outcomes = demo.outcomes().values()
    assert sorted(outcome["trial"]["ranks"] for outcome in outcomes) == [1, 1, 2, 4, 8]
    assert {outcome["status"] for outcome in outcomes} == {"completed"}
    assert {outcome["trial"]["machine"] for outcome in outcomes} == {"testbed"}
    digest = json.loads(Path(f"{demo.site['image']}.json").read_text())["sha256"]
    found = {outcome["provenance"]["image_digest"] for outcome in outcomes}
    assert found == {f"sha256:{digest}"}


@pytest.mark.parametrize(
    ("ranks", "per_node"), [(1, [1]), (2, [2]), (4, [4]), (8, [4, 4])], ids=str
)
def test_ranks_fill_one_node_after_the_other_in_one_job(demo, ranks, per_node):
    outcome = demo.outcome(ranks=ranks, accumulation=1)
    processes = outcome["ranks"]
    assert [process["rank"] for process in processes] == list(range(ranks))
    assert [process["slurm"]["slurm_procid"] for process in processes] == [*map(str, range(ranks))]
    nodes = Counter(process["node"] for process in processes)
    assert sorted(nodes.values()) == per_node
    assert set(nodes) <= {"tb1", "tb2"}
    for process in processes:
        assert process["slurm"]["slurmd_nodename"] == process["node"]
        assert process["slurm"]["slurm_localid"] == str(process["local_rank"])
    jobs = {process["slurm"]["slurm_job_id"] for process in processes}
    assert jobs <= {job.id for job in demo.jobs() if job.rule == "trial"}
    assert len(jobs) == 1


def test_eight_ranks_learn_what_one_rank_learns_that_accumulates_eight_times(demo):
    wide = demo.outcome(ranks=8, accumulation=1)["epochs"]
    deep = demo.outcome(ranks=1, accumulation=8)["epochs"]
    assert [epoch["loss"] for epoch in wide] == pytest.approx(
        [epoch["loss"] for epoch in deep], rel=SAME_LOSS
    )
    assert [epoch["seeds"] for epoch in wide] == [epoch["seeds"] for epoch in deep]


def test_only_trials_reach_the_gpus(prepared, demo):
    # The image only where the one of an earlier session was not the one wanted.
    data = {(job.rule, job.partition) for job in prepared.jobs()}
    assert {("store", "cpu")} <= data <= {("store", "cpu"), ("image", "cpu")}
    # Tables, figures and report were not submitted at all.
    assert {(job.rule, job.partition, job.state) for job in demo.jobs()} == {
        ("trial", "gpu", "COMPLETED")
    }


def test_the_report_names_the_machine_and_the_tables_the_jobs(demo):
    assert "testbed" in (demo.results / "testbed/report.html").read_text()
    with (demo.results / "testbed/tables/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["machine"] for row in rows} == {"testbed"}
    with (demo.results / "testbed/accounting.csv").open() as file:
        accounted = list(csv.DictReader(file))
    assert len(accounted) >= len(demo.outcomes())


def test_once_more_there_is_nothing_to_do(demo):
    assert "Nothing to be done" in demo.run(configfile=DEMO).said
