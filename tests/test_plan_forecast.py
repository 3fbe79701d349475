"""The plan's rows, sums and texts, from the configuration alone and from probes and rates."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from configurations import CLUSTER, GOOD, WORKSTATION, changed, study_of
from outcome_factory import make_outcome
from probed import CHECKSUM, PRODUCTS, probe, rate, sample
from sagebench.files import write_json
from sagebench.grid.freeze import outcome_path
from sagebench.plan import as_text, limits
from sagebench.plan.budget import drops, refusal
from sagebench.plan.build import plan_rows
from sagebench.plan.forecast import Forecaster
from sagebench.plan.rows import totals
from sagebench.predict.cards import card_rates
from sagebench.predict.rates import path_of
from sagebench.predict.time import epoch_time
from sagebench.predict.work import parameters
from workflow_project import ROOT

CARD = {**CLUSTER, "card": "A100-40GB"}
BEFORE = "host_private_before_training_bytes"


def study_in(results, values=GOOD, site=CARD):
    return study_of({**values, "results": str(results)}, site)


def predicted(results, values=GOOD, site=CARD, **probing):
    study = study_in(results, values, site)
    probe(study, **probing)
    return study


def finish(study, trial_id, *, trial=None, phases=True, rank=None, **outcome):
    """Write an outcome of a trial of the study, or of `trial`, on the probes' store.

    phases: whether they were timed. rank: what its ranks say of themselves.
    """
    trial = trial or study.requests[trial_id].trial
    made = make_outcome(trial.to_json(), checksum=CHECKSUM, **outcome)
    made["store"] |= {k: v for k, v in PRODUCTS.to_json().items() if k in made["store"]}
    there = sample(trial.fanout, trial.batch_size)
    made["sample"] = {
        "nodes_per_hop": [spread.mean for spread in there.nodes_per_hop],
        "edges_per_hop": [spread.mean for spread in there.edges_per_hop],
    }
    if trial.placement != "auto":
        made["placement"]["chosen"] = trial.placement
    if not phases:
        made["phases"] = None
    for described in made["ranks"]:
        described |= rank or {}
    write_json(outcome_path(study.results, trial.id), made)
    return made


def test_without_a_probe_hours_are_those_asked_for(tmp_path):
    values = changed("experiments.scaling.list", [{"ranks": n} for n in (1, 2, 4, 8)])
    values["defaults"]["walltime_min"] = 120
    rows = plan_rows(study_in(tmp_path, values))
    scaling = [row for row in rows if row.experiment == "scaling" and row.seed == 0]
    assert [row.hours_used for row in scaling] == [2, 4, 8, 16]
    assert [row.hours_allocated for row in scaling] == [8, 8, 8, 16]
    assert [row.node_hours for row in scaling] == [2, 2, 2, 4]
    assert [row.nodes for row in scaling] == [1, 1, 1, 2]
    assert {row.source for row in rows} == {"asked for"} and not any(row.fits for row in rows)


def test_with_probe_and_card_memory_time_and_energy_are_predicted_with_intervals(tmp_path):
    study = predicted(tmp_path, changed("defaults.walltime_min", 2000))
    for row in plan_rows(study):
        assert row.source == "predicted" and row.fits in ("fits", "tight", "will not fit")
        assert row.peak_memory_low_bytes <= row.peak_memory_bytes <= row.peak_memory_high_bytes
        assert row.epoch_low_s < row.epoch_s < row.epoch_high_s
        assert row.hours_used_low < row.hours_used < row.hours_used_high
        assert row.total_h * 3600 > 3 * row.epoch_s
        assert "data sheet of A100-40GB" in row.time_source and "A100-40GB" in row.energy_source
    everything = totals(plan_rows(study))[-1]
    assert everything.predicted == 10 and everything.energy_kj > 0


def test_what_was_not_probed_keeps_the_time_asked_for(tmp_path):
    study = predicted(tmp_path, leave_out=("15,10,10,10,10/64",))
    rows = plan_rows(study)
    assert {row.source for row in rows if row.batch_size == 64} == {"asked for"}
    assert {row.source for row in rows if row.batch_size != 64} == {"predicted"}
    text = as_text.as_text(study, rows)
    assert "~" in text and "or the time asked for" in text


def test_without_rates_memory_is_predicted_and_time_is_not(tmp_path):
    study = predicted(tmp_path, site=WORKSTATION)
    assert {(row.source, row.fits is None) for row in plan_rows(study)} == {("asked for", False)}
    rate(study)
    assert {row.source for row in plan_rows(study)} == {"predicted"}


def test_a_probe_of_another_store_is_none(tmp_path):
    study = predicted(tmp_path)
    (store,) = study.stores
    write_json(tmp_path / "stores" / store / "manifest.json", {"checksum": "another"})
    assert Forecaster(study).probes == {}


def test_a_time_beyond_the_walltime_is_spent_up_to_it_and_said(tmp_path):
    values = changed("defaults.walltime_min", 1)
    values["defaults"]["epochs"] = 500
    study = predicted(tmp_path, values)
    rows = plan_rows(study)
    assert all(row.hours_used == row.ranks / 60 < row.ranks * row.total_h for row in rows)
    (sentence,) = [s for s in limits.sentences(study, rows) if "walltime_min" in s]
    assert sentence.startswith("10 trials") and "would end as time_limit" in sentence


def test_what_is_measured_costs_nothing_more_and_shows_what_was_measured(tmp_path):
    study = predicted(tmp_path)
    first = next(iter(study.requests))
    finish(study, first, epoch_s=7.5, peak_bytes=3e9)
    rows = plan_rows(study)
    assert rows[0].source == "measured" and rows[0].status == "completed"
    assert (rows[0].hours_used, rows[0].energy_kj) == (0, None)
    assert (rows[0].epoch_s, rows[0].peak_memory_bytes, rows[0].test_accuracy) == (7.5, 3e9, 0.8)
    batch, scaling, everything = totals(rows)
    assert (batch.trials, batch.measured, batch.to_run) == (6, 1, 5)
    assert (scaling.trials, scaling.measured, everything.measured) == (4, 0, 1)


def test_outcomes_of_other_trials_correct_a_time_and_its_own_never_does(tmp_path):
    study = predicted(tmp_path)
    first, second, *_ = [k for k, r in study.requests.items() if r.trial.engine == "blocks"]
    alone = Forecaster(study).of(study.requests[first])
    finish(study, first, epoch_s=10 * alone.time.epoch_s)
    assert Forecaster(study, without=[first]).of(study.requests[first]).time == alone.time
    corrected = Forecaster(study).of(study.requests[second])
    assert corrected.time.used == (first,) and "corrected by 1 outcome" in corrected.time.source
    before = Forecaster(study, without=[first]).of(study.requests[second])
    assert corrected.time.epoch_s > 3 * before.time.epoch_s


def test_an_outcome_as_predicted_leaves_a_prediction_as_it_was(tmp_path):
    """Also of several ranks, that wait for each other."""
    study = predicted(tmp_path)
    first, twin = (k for k, r in study.requests.items() if r.trial.ranks == 2)
    alone = Forecaster(study).of(study.requests[twin])
    finish(study, first, epoch_s=alone.time.epoch_s, phases=False)
    corrected = Forecaster(study).of(study.requests[twin])
    assert corrected.time.used == (first,)
    assert corrected.time.epoch_s == pytest.approx(alone.time.epoch_s, rel=1e-9)


@pytest.mark.parametrize("hidden", [32, 2048])
def test_outcomes_tell_what_a_process_takes_and_a_trial_adds_its_own_weights(tmp_path, hidden):
    study = predicted(tmp_path, changed("defaults.hidden_channels", hidden), WORKSTATION)
    one, other, *_ = [k for k, r in study.requests.items() if r.trial.engine == "blocks"]
    request = study.requests[other]
    assert request.trial.ranks == 1
    before = Forecaster(study).of(request).memory
    narrow = replace(study.requests[one].trial, hidden_channels=32)
    for trial in (narrow, replace(request.trial, hidden_channels=256)):
        own = 300_000_000 + 16 * parameters(trial, PRODUCTS) + 5 * PRODUCTS.num_nodes
        finish(study, None, trial=trial, rank={BEFORE: own})
    after = Forecaster(study).of(request).memory
    assert after.parts["process"] == 300_000_000
    grown = after.before_bytes - before.before_bytes
    assert grown == 300_000_000 - before.parts["process"]
    assert {name: size for name, size in after.parts.items() if name != "process"} == pytest.approx(
        {name: size for name, size in before.parts.items() if name != "process"}
    )


def test_what_a_rank_among_others_takes_says_nothing_of_one_alone(tmp_path):
    study = predicted(tmp_path, site=WORKSTATION)
    pair, _ = (k for k, r in study.requests.items() if r.trial.ranks == 2)
    requests = list(study.requests.values())
    before = [Forecaster(study).of(request).memory for request in requests]
    finish(study, pair, rank={BEFORE: 900_000_000})
    after = [Forecaster(study).of(request).memory for request in requests]
    for request, one, another in zip(requests, before, after, strict=True):
        assert (one == another) == (request.trial.ranks == 1)


def test_an_outcome_that_the_rates_cannot_describe_leaves_the_others(tmp_path):
    study = predicted(tmp_path, site={**CLUSTER, "card": "V100-32GB"})
    first, second, *_ = study.requests
    tensor = replace(study.requests[first].trial, precision="bf16")
    v100 = {"device_name": "Tesla V100-SXM2-32GB"}
    finish(study, None, trial=tensor, rank=v100)
    finish(study, first, rank=v100)
    assert Forecaster(study).of(study.requests[second]).time.used == (first,)


def test_a_cpus_outcome_that_was_placed_on_the_host_leaves_the_others(tmp_path):
    study = predicted(tmp_path, site=WORKSTATION)
    rate(study)
    first, second, *_ = study.requests
    finish(study, None, trial=replace(study.requests[first].trial, placement="host"))
    assert Forecaster(study).of(study.requests[second]).time is not None


@pytest.mark.parametrize("site", [CARD, WORKSTATION])
@pytest.mark.parametrize("lacks", ["trial", "store", "sample", "ranks", "timing", "epochs"])
def test_a_torn_or_foreign_outcome_leaves_the_plan_as_it_was(tmp_path, site, lacks):
    study = predicted(tmp_path, site=site)
    if site is WORKSTATION:
        rate(study)
    rows = plan_rows(study)
    first = next(iter(study.requests.values())).trial
    other = replace(first, seed=77)
    path = outcome_path(study.results, other.id)
    whole = finish(study, None, trial=other)
    newer = {**whole, "trial": {**whole["trial"], "newer_than_this": 1}}
    torn = {name: value for name, value in whole.items() if name != lacks}
    for outcome in (newer, torn, {**whole, lacks: None}):
        write_json(path, outcome)
        if lacks != "epochs" or outcome is newer:
            assert [r.epoch_s for r in plan_rows(study)] == [r.epoch_s for r in rows]
        assert len(plan_rows(study)) == len(rows)


def test_rates_of_the_sites_machine_come_before_those_of_its_card(tmp_path):
    study = study_in(tmp_path, site=CLUSTER)
    assert Forecaster(study).rates is None
    study = study_in(tmp_path)
    assert Forecaster(study).rates.source == "data sheet of A100-40GB"
    measured = replace(card_rates("H100"), source="measured")
    path = path_of(tmp_path, study.site.machine)
    write_json(path, measured.to_json())
    assert Forecaster(study).rates.source == "measured"
    write_json(path, replace(measured, device="cpu").to_json())
    assert Forecaster(study).rates.source == "data sheet of A100-40GB"


@pytest.mark.parametrize(("card_bytes", "on_card"), [(3.3e9, False), (3.9e9, True)])
def test_memory_and_time_are_of_the_same_placement(tmp_path, card_bytes, on_card):
    """Index and features take 1.5 GB, the CUDA context 0.5 GB: decided once for both."""
    study = predicted(tmp_path)
    rates = replace(card_rates("A100-40GB"), device_memory_bytes=int(card_bytes))
    write_json(path_of(tmp_path, study.site.machine), rates.to_json())
    request = next(r for r in study.requests.values() if r.trial.engine == "blocks")
    forecast = Forecaster(study).of(request)
    there = sample(request.trial.fanout, request.trial.batch_size)
    placed = epoch_time(
        request.trial, there, PRODUCTS, rates, placement="device" if on_card else "host"
    )
    assert ("graph and features" in forecast.memory.parts) == on_card
    assert forecast.time.phases == placed.phases


def test_a_shared_trial_counts_once_in_the_sum(tmp_path):
    twin = {"axis": "batch_size", "product": {"ranks": [1, 2, 4]}, "seeds": [0, 1]}
    study = study_in(tmp_path, changed("experiments.twin", twin))
    *_, everything = totals(plan_rows(study))
    assert everything.trials == 12


def test_the_csv_has_a_row_for_each_experiment_and_trial(tmp_path):
    study = predicted(tmp_path)
    text = as_text.as_csv(plan_rows(study), as_text.device_word(study))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["experiment"] for row in rows] == ["batch"] * 6 + ["scaling"] * 4
    assert rows[0]["fanout"] == "15,10,10,10,10"
    assert rows[0]["measured"] == "false"
    assert float(rows[0]["gpu_hours_allocated"]) > float(rows[0]["gpu_hours_used"]) > 0
    assert float(rows[0]["peak_memory_bytes"]) > 1e8


@pytest.mark.parametrize(("site", "gpu"), [(WORKSTATION, False), (CLUSTER, True)])
def test_a_cpu_is_never_called_a_gpu(tmp_path, site, gpu):
    study = study_in(tmp_path, site=site)
    rows = plan_rows(study)
    assert ("GPU" in as_text.as_text(study, rows)) == gpu
    assert ("gpu" in as_text.as_csv(rows, as_text.device_word(study))) == gpu


def test_more_rows_than_one_reads_are_left_to_the_csv(tmp_path):
    study = study_in(tmp_path, changed("experiments.scaling.seeds", list(range(150))))
    lines = as_text.as_text(study, plan_rows(study)).splitlines()
    assert len(lines) < 20


def test_the_sites_limits_are_compared(tmp_path):
    limited = {"max_submitted_jobs": 4, "max_devices": 4, "node_hours": 3.0}
    values = changed("experiments.scaling.list", [{"ranks": 1}, {"ranks": 8}])
    study = study_in(tmp_path, values, {**CARD, "limits": limited})
    text = "\n".join(limits.sentences(study, plan_rows(study)))
    assert "10 jobs are to be submitted" in text and "--jobs 4" in text
    assert "more than the 4 devices" in text
    assert "the account has 3.0 left" in text


def test_a_study_over_budget_is_told_what_to_drop_for_what_saving(tmp_path):
    study = study_in(tmp_path, {**GOOD, "budget_node_hours": 7.5})
    rows = plan_rows(study)  # ten trials of one hour of one node
    refused = refusal(study, rows)
    assert "takes 10.0 node-hours (as asked for by walltime_min)" in refused
    assert "3.00  saved; 7.00 node-hours remain" in refused
    assert "--config budget_node_hours=10" in refused
    for budget in (None, 10):
        configuration = study.configuration.model_copy(update={"budget_node_hours": budget})
        assert refusal(replace(study, configuration=configuration), rows) is None


def test_the_fewest_trials_are_dropped():
    study = study_of(GOOD)
    row = plan_rows(study)[0]
    rows = [row._replace(node_hours=hours) for hours in (1.0, 2.0, 5.0, 8.0)]
    assert [r.node_hours for r in drops(rows, 4.5)] == [5.0]
    assert [r.node_hours for r in drops(rows, 9.5)] == [8.0, 2.0]
    assert drops(rows, 0) == []


NO_TORCH = """
import runpy, sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torch_geometric", "numba"):
            raise ImportError(name)
sys.meta_path.insert(0, Refused())
sys.argv = ["plan.py", "--configfile", "config/demo.yaml", "--out", sys.argv[1]]
runpy.run_path("workflow_scripts/plan.py", run_name="__main__")
"""


def test_the_plan_needs_no_torch(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", NO_TORCH, str(tmp_path / "plan.csv")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "workflow_scripts"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "plan.html").exists() and (tmp_path / "plan.csv").exists()
