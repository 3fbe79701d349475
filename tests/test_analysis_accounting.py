"""Slurm's accounting in the tables and in the report, beside what was measured."""

from __future__ import annotations

import pandas as pd
import pytest
from outcome_factory import StudyFiles, make_outcome, make_trial, trial_id
from sagebench.analysis.columns import SLURM_COLUMNS
from sagebench.analysis.outcomes import read_records, read_study
from sagebench.analysis.points import going_along, of_axis
from sagebench.analysis.report import accounting_summary, render
from sagebench.analysis.tables import TABLES, build_tables, read_accounting, read_table, write_table
from sagebench.slurm.accounting import COLUMNS, as_csv

NAMES = [column.name for column in SLURM_COLUMNS]
BOTH = [make_trial(device="cuda", ranks=2), make_trial(device="cuda", ranks=2, seed=1)]


def row(trial=BOTH[0], attempt=1, hours=1.0, **values):
    """What accounting.csv says of an attempt on a node of four GPUs, for so many hours."""
    return dict.fromkeys(COLUMNS) | {
        "trial_id": trial_id(trial),
        "attempt": attempt,
        "attempt_status": "completed",
        "failed": False,
        "ranks": 2,
        "slurm_job_id": str(100 + attempt),
        "state": "COMPLETED",
        "started_at": "2026-03-02T08:00:00+00:00",
        "elapsed_s": 3600.0 * hours,
        "queue_s": 90.0,
        "nodes": 1,
        "node_names": "mel2001",
        "gpus_allocated": 4,
        "gpu_hours_allocated": 4.0 * hours,
        "gpu_hours_used": 2.0 * hours,
        **values,
    }


def unknown(reason, **values):
    """An attempt of which Slurm says nothing."""
    kept = ("trial_id", "attempt", "failed", "ranks", "slurm_job_id")
    return {k: v if k in kept else None for k, v in row(**values).items()} | {"reason": reason}


@pytest.fixture
def accounting(tmp_path):
    def read(*rows):
        path = tmp_path / "accounting.csv"
        path.write_text(as_csv(rows))
        return read_accounting(path)

    return read


@pytest.fixture
def study(tmp_path):
    files = StudyFiles(tmp_path / "results")
    files.experiment("scaling", "ranks")
    for trial in BOTH:
        files.add("scaling", make_outcome(trial))
    return files


def tables(study, accounting=None):
    records = read_records(read_study(study.freeze()), study.results, False)
    return [table.to_pylist() for table in build_tables(records, accounting)[:2]]


def test_a_trial_has_its_last_attempt_s_figures_and_the_total_of_all(study, accounting):
    failed = {"failed": True, "state": "NODE_FAIL", "queue_s": 5.0}
    # In the order of another file than this study's, and the second trial's attempts in between.
    rows = [row(attempt=2, hours=0.5), row(BOTH[1], energy_j=5e6), row(hours=2.0, **failed)]
    (first, second), _ = tables(study, accounting(*rows))
    assert (first["slurm_job_id"], first["slurm_state"]) == ("102", "COMPLETED")
    assert (first["slurm_queue_s"], first["slurm_elapsed_s"]) == (90.0, 1800.0)
    assert (first["slurm_nodes"], first["slurm_gpus_allocated"]) == ("mel2001", 4)
    assert (first["slurm_gpu_hours_used"], first["slurm_gpu_hours_allocated"]) == (1.0, 2.0)
    assert first["slurm_gpu_hours_allocated_total"] == 10.0
    assert (first["slurm_energy_j"], second["slurm_energy_j"]) == (None, 5e6)
    assert second["slurm_gpu_hours_allocated_total"] == 4.0


def test_nothing_that_was_measured_changes(study, accounting):
    before, epochs = tables(study)
    after, same = tables(study, accounting(row(), unknown("why", trial=BOTH[1])))
    assert [{k: v for k, v in line.items() if k not in NAMES} for line in after] == before
    assert epochs == same
    assert list(after[0])[-len(NAMES) :] == NAMES
    assert not set(before[0]) & set(NAMES)


def test_it_sets_no_series_apart_and_is_no_value_of_a_trial(study, accounting):
    study.add("scaling", make_outcome(make_trial(device="cuda", ranks=4), cores=8))
    rows = [row(), row(BOTH[1], queue_s=5.0, slurm_job_id="200", hours=2.0)]
    trials = pd.DataFrame(tables(study, accounting(*rows))[0])
    assert of_axis(trials, "ranks")["series"].nunique() == 1
    assert going_along(trials, "ranks") == []
    assert trials["speed_up"].notna().all()


def test_without_figures_the_reason_stands_there(study, accounting):
    (first, second), _ = tables(study, accounting(unknown("sacct is not installed here")))
    assert first["slurm_missing_because"] == "sacct is not installed here"
    assert {first[name] for name in NAMES[1:-1]} == {None}
    assert {second[name] for name in NAMES} == {None}


def test_the_summary_counts_all_attempts(accounting):
    topics, missing = accounting_summary(
        accounting(
            row(hours=1.0, energy_j=3.6e6),
            row(attempt=2, hours=0.5, failed=True, state="NODE_FAIL", queue_s=600.0),
            row(BOTH[1], hours=1.5, slurm_job_id="200", queue_s=30.0),
            unknown("no Slurm job ran it", trial=BOTH[1], attempt=2),
        )
    )
    assert dict(topics) == {
        "Jobs": "2 completed, 1 node fail",
        "GPU-hours used": "6.00 of 12.0 allocated",
        "By attempts that failed": "2.00 GPU-hours allocated",
        "Time in the queue": "90.0 s (median), 10.0 min at most",
        "Energy of the nodes": "1.00 kWh (1 of 3 attempts)",
    }
    assert missing == ["1 of 4 attempts have no accounting of their own: no Slurm job ran it."]


def test_without_gpus_the_nodes_are_counted(accounting):
    none = dict.fromkeys(("gpus_allocated", "gpu_hours_allocated", "gpu_hours_used"))
    topics, _ = accounting_summary(accounting(row(nodes=2, **none)))
    assert dict(topics)["Node-hours"] == "2.00"
    assert dict(topics)["Energy of the nodes"] == "not recorded by the site"


def test_without_any_accounting_there_is_one_sentence(accounting):
    rows = [unknown("sacct is not installed here", attempt=n) for n in (1, 2)]
    assert accounting_summary(accounting(*rows)) == (
        [],
        ["2 of 2 attempts have no accounting of their own: sacct is not installed here."],
    )
    assert accounting_summary(accounting()) == ([], ["No attempt was recorded."])


def test_the_report_has_a_section_where_there_is_a_cluster_and_none_elsewhere(
    study, accounting, tmp_path
):
    records = read_records(read_study(study.freeze()), study.results, False)
    figures = tmp_path / "figures"
    figures.mkdir()
    for name in ("scaling_time", "speedup", "efficiency", "loss_curves", "phases_ranks"):
        (figures / f"{name}.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")

    def page(said):
        for table, name in zip(build_tables(records, said), TABLES, strict=True):
            write_table(table, tmp_path, name)
        read = [read_table(tmp_path, name) for name in TABLES]
        return render(read_study(study.path), *read, tmp_path, said)

    local = page(None)
    assert 'id="accounting"' not in local and "slurm_queue_s" not in local
    cluster = page(accounting(row(), unknown("<b>odd</b>", trial=BOTH[1])))
    assert cluster.count("#accounting") == 1
    assert "2.00 of 4.00 allocated" in cluster
    assert "&lt;b&gt;odd&lt;/b&gt;" in cluster
    assert "slurm_queue_s" in cluster


def test_no_file_is_no_accounting(tmp_path):
    assert read_accounting(None) is read_accounting(tmp_path / "missing.csv") is None
