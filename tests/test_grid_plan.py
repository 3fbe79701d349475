"""The plan's rows and sums."""

from __future__ import annotations

import csv
import io

from configurations import CLUSTER, GOOD, WORKSTATION, changed, study_of
from sagebench.grid import plan
from sagebench.grid.freeze import outcome_path


def test_hours_used_and_allocated():
    values = changed("experiments.scaling.list", [{"ranks": n} for n in (1, 2, 4, 8)])
    values["defaults"]["walltime_min"] = 120
    rows = plan.plan_rows(study_of(values, CLUSTER))
    scaling = [row for row in rows if row.experiment == "scaling" and row.seed == 0]
    assert [row.hours_used for row in scaling] == [2, 4, 8, 16]
    assert [row.hours_allocated for row in scaling] == [8, 8, 8, 16]
    assert [row.nodes for row in scaling] == [1, 1, 1, 2]


def test_what_is_measured_costs_nothing_more(tmp_path):
    study = study_of({**GOOD, "results": str(tmp_path)})
    first = next(iter(study.requests))
    path = tmp_path / outcome_path("", first).lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    batch, scaling, everything = plan.totals(plan.plan_rows(study))
    assert (batch.trials, batch.measured, batch.hours_used) == (6, 1, 5)
    assert (scaling.trials, scaling.measured, scaling.hours_used) == (4, 0, 6)
    assert (everything.trials, everything.measured, everything.hours_used) == (10, 1, 11)


def test_a_shared_trial_counts_once_in_the_sum():
    twin = {"axis": "batch_size", "product": {"ranks": [1, 2, 4]}, "seeds": [0, 1]}
    *_, everything = plan.totals(plan.plan_rows(study_of(changed("experiments.twin", twin))))
    assert everything.trials == 12


def test_the_csv_has_a_row_for_each_experiment_and_trial():
    study = study_of(GOOD, CLUSTER)
    text = plan.as_csv(plan.plan_rows(study), plan.device_word(study))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["experiment"] for row in rows] == ["batch"] * 6 + ["scaling"] * 4
    assert rows[0]["fanout"] == "15,10,10,10,10"
    assert rows[0]["measured"] == "false"
    assert "gpu_hours_allocated" in rows[0]


def test_a_cpu_is_never_called_a_gpu():
    for site, gpu in ((WORKSTATION, False), (CLUSTER, True)):
        study = study_of(GOOD, site)
        rows = plan.plan_rows(study)
        assert ("GPU" in plan.as_text(study, rows)) == gpu
        assert ("gpu" in plan.as_csv(rows, plan.device_word(study))) == gpu


def test_more_rows_than_one_reads_are_left_to_the_csv():
    study = study_of(changed("experiments.scaling.seeds", list(range(150))))
    lines = plan.as_text(study, plan.plan_rows(study)).splitlines()
    assert len(lines) < 20
