"""The plan beside what is there: outcomes of any kind, walltimes, and predictions of before."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from configurations import CLUSTER, GOOD, WORKSTATION, changed, study_of
from outcome_factory import make_outcome
from probed import CHECKSUM, probe
from sagebench.estimate.memory import FITS, NO_FIT
from sagebench.files import write_json
from sagebench.grid.freeze import outcome_path, prediction_path
from sagebench.plan import limits
from sagebench.plan.decisions import applied, decide, refusal, runtime
from sagebench.plan.forecast import Forecaster, freeze_predictions, known_outcomes
from sagebench.plan.page import Cell, Frontier, frontiers, memory_frontier
from sagebench.plan.rows import computes, plan_rows, totals
from sagebench.plan.tables import as_text
from sagebench.records import Outcome
from trials import make_trial

CARD = {**CLUSTER, "card": "A100-40GB"}
A100_W = 400


def study_in(results, values=GOOD):
    study = study_of({**values, "results": str(results)}, CARD)
    probe(study)
    return study


def outcome_of(study, trial_id, **values):
    made = make_outcome(study.requests[trial_id].trial.to_json(), checksum=CHECKSUM, **values)
    write_json(outcome_path(study.results, trial_id), made)
    return made


def test_energy_ends_with_the_walltime_as_the_hours_do(tmp_path):
    values = changed("defaults.walltime_min", 1)
    values["defaults"]["epochs"] = 500
    everything = totals(plan_rows(study_in(tmp_path, values)))[-1]
    power_w = 1000 * everything.energy_kj / (3600 * everything.hours_used)
    assert 0.3 * A100_W < power_w <= A100_W


def test_a_trial_that_goes_on_in_another_job_is_not_told_that_it_ends(tmp_path):
    values = changed("defaults.continue_after_walltime", True)
    values["defaults"] |= {"walltime_min": 1, "epochs": 500_000}
    study = study_in(tmp_path, values)
    rows = plan_rows(study)
    assert all(row.hours_used > row.ranks * row.walltime_h for row in rows)
    said = " ".join(limits.sentences(study, rows))
    assert "time_limit" not in said and "continue_after_walltime" not in said


@pytest.mark.parametrize(
    "content", ["{", "{}", "[]", '{"status": "completed"}', '{"status": "completed", "trial": {}}']
)
def test_an_outcome_that_cannot_be_read_is_said_and_counts_as_not_there(tmp_path, content):
    study = study_in(tmp_path)
    first = next(iter(study.requests))
    made = outcome_of(study, first)
    path = tmp_path / "trials" / first / "outcome.json"
    assert [outcome for _, outcome in known_outcomes(study.results)] == [Outcome.from_json(made)]
    path.write_text(content)
    (tmp_path / "trials" / "another").mkdir()
    (tmp_path / "trials" / "another" / "outcome.json").write_text(content)
    rows = plan_rows(study)
    assert rows[0].status == "damaged" and rows[0].to_run and rows[0].hours_used > 0
    assert totals(rows)[-1].measured == 0
    assert all(row.source == "predicted" for row in rows)
    (said,) = [one for one in limits.sentences(study, rows) if "damaged" in one]
    assert said.startswith("The damaged outcome counts as missing, of 1 trial (blocks, batch 64")
    found = frontiers(study, rows, Forecaster(study))
    assert not any(cell.ended for one in found for cell in one.cells.values())


def test_an_outcome_of_another_trial_counts_as_not_there(tmp_path):
    study = study_in(tmp_path)
    first, second, *_ = study.requests
    write_json(outcome_path(study.results, first), outcome_of(study, second))
    assert [row.measured for row in plan_rows(study)[:2]] == [False, True]


def test_the_time_of_a_continued_trial_is_that_of_all_its_jobs(tmp_path):
    study = study_in(tmp_path)
    first = next(iter(study.requests))
    made = outcome_of(study, first)
    made["timing"]["total_s"] = 60 * 3600.0  # beside dates, of the last job, minutes apart
    write_json(outcome_path(study.results, first), made)
    assert plan_rows(study)[0].total_h == 60


def test_the_terminal_tells_trials_apart(tmp_path):
    study = study_in(tmp_path)
    text = as_text(study, plan_rows(study))
    lines = [line for line in text.splitlines() if line.startswith(("batch ", "scaling "))]
    trials = [line for line in lines if "15·10·10·10·10" in line]
    assert len(set(trials)) == len(trials) == 10
    head = next(line for line in text.splitlines() if line.startswith("Experiment"))
    assert {"Engine", "kWh"} <= set(head.split())


def test_a_refusal_tells_seeds_apart(tmp_path):
    study = study_in(tmp_path, changed("budget_node_hours", 0.0001))
    dropped = [line for line in refusal(study, plan_rows(study)).splitlines() if "batch " in line]
    assert len(set(dropped)) == len(dropped) > 3


def cell(fits=None, ended=None):
    return Cell(1e9, fits, True, ended)


@pytest.mark.parametrize(
    ("row", "edge"),
    [
        ([cell(FITS), cell(NO_FIT), cell(NO_FIT)], 0.5),
        ([cell(ended="completed"), cell(NO_FIT), cell(NO_FIT)], 0.5),
        ([cell(FITS), cell(ended="completed"), cell(ended="out_of_memory")], 1.5),
        ([cell(ended="time_limit"), cell(ended="out_of_memory"), cell(NO_FIT)], 0.5),
        ([cell(NO_FIT), cell(NO_FIT), cell(NO_FIT)], -0.5),
        ([cell(FITS), cell(FITS), cell(FITS)], None),
        ([cell(), cell(NO_FIT), cell(NO_FIT)], 0.5),
    ],
)
def test_the_line_of_the_frontier_stands_where_memory_ends(row, edge):
    sizes = [64, 128, 256]
    cells = {("5,5", size): one for size, one in zip(sizes, row, strict=True)}
    figure = memory_frontier(Frontier("blocks", ["5,5"], sizes, cells, "", 0))
    lines = [set(line.get_xdata()) for line in figure.axes[0].lines]
    assert lines == ([] if edge is None else [{edge}])


def test_estimates_tell_the_limit_where_every_trial_is_measured(tmp_path):
    study = study_in(tmp_path)
    for trial_id in study.requests:
        outcome_of(study, trial_id)
    forecaster = Forecaster(study)
    found = frontiers(study, plan_rows(study, forecaster), forecaster)
    for one in found:
        coloured = any(made.fits for made in one.cells.values())
        assert coloured == (one.limit != "no limit known")


def test_a_predicted_walltime_covers_the_interval(tmp_path):
    study = study_in(tmp_path, changed("defaults.walltime_min", 2880))
    request = next(iter(study.requests.values()))
    forecast = Forecaster(study).of(request)
    high = forecast.time.high_s / forecast.time.epoch_s
    needed_min = high * forecast.total_s / 60
    assert high > 1.05
    assert runtime(request, forecast, 1.05) >= needed_min
    assert runtime(request, forecast, 3 * high) >= 3 * needed_min
    asking = study.configuration.model_copy(update={"walltime_from_prediction": 1.05})
    study = replace(study, configuration=asking)
    rows = plan_rows(applied(decide(study, Forecaster(study)), study))
    assert rows[0].first_job_h == runtime(request, forecast, 1.05) / 60 < rows[0].walltime_h


def test_a_prediction_of_before_goes_with_the_probe_it_was_made_from(tmp_path):
    study = study_in(tmp_path)
    first, second, *_ = study.requests
    freeze_predictions(study, [first, second])
    path = tmp_path / "trials" / first / "prediction.json"
    assert str(path) == prediction_path(study.results, first)
    assert json.loads(path.read_text())["memory"]["peak_bytes"] > 0
    for found in (tmp_path / "probes").iterdir():
        found.unlink()
    freeze_predictions(study, [first])
    assert not path.exists() and (tmp_path / "trials" / second / "prediction.json").exists()


def test_leaving_out_what_does_not_fit_needs_a_probe_and_a_limit(tmp_path):
    values = changed("skip_predicted_out_of_memory", True) | {"results": str(tmp_path)}

    def said(site):
        study = study_of(values, site)
        found = limits.sentences(study, plan_rows(study))
        return [
            one for one in found if one.startswith("skip_predicted_out_of_memory leaves nothing")
        ]

    assert "before `make probe`" in said(CARD)[0]
    probe(study_of(values, CARD))
    assert not said(CARD)
    assert "card in its site.yaml" in said(CLUSTER)[0]


def test_more_threads_than_cores_are_said(tmp_path):
    values = changed("experiments.batch.zip.ranks", [1, 4, 8])
    values["defaults"]["threads_per_rank"] = 2

    def said(cores):
        study = study_of(
            {**values, "results": str(tmp_path)}, {**WORKSTATION, "cpus_per_node": cores}
        )
        return [s for s in limits.sentences(study, plan_rows(study)) if "oversubscribed" in s]

    assert not said(16)
    assert said(4)[0].startswith("Trials of 4 and 8 ranks have more ranks x threads than a node")


def test_a_batch_of_the_whole_graph_is_said(tmp_path):
    values = changed("experiments.batch.zip.batch_size", [64, 128, 200_000])
    study = study_in(tmp_path, values)
    rows = plan_rows(study)
    assert {row.steps_per_epoch for row in rows if row.batch_size == 200_000} == {1}
    assert min(row.steps_per_epoch for row in rows if row.batch_size < 200_000) > 100
    (said,) = [one for one in limits.sentences(study, rows) if "single step" in one]
    assert said.startswith("An epoch of 2 trials (blocks, batch 200000, fanout 15,10,10,10,10; ")


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({}, "blocks"),
        ({"engine": "trimmed", "model": "gin"}, "trimmed, gin"),
        ({"sampler": "labor"}, "blocks, labor"),
        ({"method": "vote"}, "vote"),
    ],
)
def test_a_row_names_a_model_and_a_sampler_that_are_not_the_usual_ones(values, shown):
    assert computes(make_trial(**values)) == shown


def test_the_terminal_shows_an_axis_that_has_no_column(tmp_path):
    widths = {"axis": "hidden_channels", "product": {"hidden_channels": [16, 64]}}
    study = study_in(tmp_path, {**GOOD, "experiments": {"width": widths}})
    text = as_text(study, plan_rows(study))
    assert "hidden_channels 16" in text and "hidden_channels 64" in text
    plain = study_in(tmp_path, GOOD)
    assert "Axis" not in as_text(plain, plan_rows(plain)).split()
