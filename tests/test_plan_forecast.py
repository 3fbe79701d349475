"""The plan's rows, sums and texts: from the configuration alone, probes, pilots and outcomes."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from dataclasses import replace
from math import ceil
from pathlib import Path

import pytest
from configurations import CLUSTER, GOOD, WORKSTATION, changed, study_of
from outcome_factory import make_outcome
from probed import CHECKSUM, PRODUCTS, pilot, probe
from sagebench.estimate.cards import CARDS, card_of
from sagebench.estimate.probe import path_of
from sagebench.estimate.time import roofline
from sagebench.files import read_json, write_json
from sagebench.grid.freeze import outcome_path, prediction_path
from sagebench.plan import limits
from sagebench.plan.decisions import applied, decide, drops, refusal
from sagebench.plan.forecast import Forecaster, freeze_predictions
from sagebench.plan.rows import plan_rows, totals
from sagebench.plan.tables import as_csv, as_text, device_word
from sagebench.records import Status
from sagebench.units import GIB
from workflow_project import ROOT

CARD = {**CLUSTER, "card": "A100-40GB"}


def study_in(results, values=GOOD, site=CARD):
    return study_of({**values, "results": str(results)}, site)


def predicted(results, values=GOOD, site=CARD, **probing):
    study = study_in(results, values, site)
    probe(study, **probing)
    return study


def finish(study, trial_id, *, trial=None, **outcome):
    """Write an outcome of a trial of the study, or of `trial`, on the probes' store."""
    trial = trial or study.requests[trial_id].trial
    made = make_outcome(trial.to_json(), checksum=CHECKSUM, **outcome)
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
    text = as_text(study, rows)
    assert "~" in text and "or the time asked for" in text


def test_on_a_cpu_no_memory_and_no_time_is_estimated_before_a_pilot(tmp_path):
    study = predicted(tmp_path, site=WORKSTATION)
    rows = plan_rows(study)
    assert {(row.source, row.fits, row.peak_memory_bytes) for row in rows} == {
        ("asked for", None, None)
    }
    pilot(study)
    rows = plan_rows(study)
    assert {(row.source, row.time_basis) for row in rows} == {("predicted", "measured steps")}
    assert {(row.peak_memory_bytes, row.memory_bytes) for row in rows} == {(None, GIB)}
    assert "1.00 GiB in its pilot" in as_text(study, rows)


def build_store(study, values=None):
    """A manifest like that of the probes' store."""
    (store,) = study.stores
    shapes = {
        "colptr": ("int64", [PRODUCTS.num_nodes + 1]),
        "row": ("int32", [PRODUCTS.num_edges]),
        "features": ("float32", [PRODUCTS.num_nodes, PRODUCTS.num_features]),
        "train": ("int64", [PRODUCTS.train_nodes]),
        "valid": ("int64", [PRODUCTS.valid_nodes]),
        "test": ("int64", [PRODUCTS.test_nodes]),
    }
    arrays = {name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in shapes.items()}
    names = ("num_nodes", "num_edges", "num_features", "num_classes")
    manifest = {name: getattr(PRODUCTS, name) for name in names}
    manifest |= {"checksum": CHECKSUM, "arrays": arrays, **(values or {})}
    write_json(f"{study.results}/stores/{store}/manifest.json", manifest)
    return store


def test_pilots_need_no_probe_where_the_store_is_built(tmp_path):
    study = study_in(tmp_path, site=WORKSTATION)
    store = build_store(study)
    pilot(study)
    assert Forecaster(study).probes[store].graph == PRODUCTS
    assert {row.source for row in plan_rows(study)} == {"predicted"}


def test_a_probe_of_another_store_is_none(tmp_path):
    study = predicted(tmp_path)
    store = build_store(study, {"checksum": "another"})
    assert not Forecaster(study).probes[store].samples
    assert {row.source for row in plan_rows(study)} == {"asked for"}


def test_a_damaged_manifest_leaves_the_probe(tmp_path):
    study = predicted(tmp_path)
    build_store(study, {"checksum": "another", "arrays": {}})
    assert {row.source for row in plan_rows(study)} == {"predicted"}


def test_damaged_files_count_as_not_there_and_are_named(tmp_path):
    study = predicted(tmp_path, site=WORKSTATION)
    build_store(study)
    pilot(study)
    first = sorted((tmp_path / "pilots" / "workstation").glob("pubmed-*.json"))[0]
    for path in (*(tmp_path / "probes").iterdir(), first):
        path.write_text(path.read_text()[:300])
    warned = []
    rows = plan_rows(study, Forecaster(study, warn=warned.append))
    assert {row.source for row in rows} == {"predicted", "asked for"}
    assert len(warned) == 2 and "is no probe" in warned[0] and "is no pilot" in warned[1]
    assert all("writes it again" in said or "repeats it" in said for said in warned)


def test_an_epoch_is_so_many_measured_steps(tmp_path):
    study = predicted(tmp_path, changed("defaults.walltime_min", 2880))
    modelled = {row.trial: row for row in plan_rows(study)}
    pilot(study, step_s=0.5)
    for row in plan_rows(study):
        trial = study.requests[row.trial].trial
        micro_steps = ceil(ceil(PRODUCTS.train_nodes / trial.batch_size) / trial.ranks)
        measured_s = 1.0 + 0.5 * micro_steps
        if trial.ranks == 1:
            assert row.epoch_s == pytest.approx(measured_s)
            assert row.time_source == "measured steps"
            whole_s = 5.0 + trial.epochs * measured_s + 7.0
            whole_s += 4.0 * ceil(trial.epochs / trial.evaluate_every_epochs)
            whole_s += 0.5 * trial.phase_window_steps
            assert row.total_h * 3600 == pytest.approx(whole_s)
        else:  # the gradients' sum over the ranks is a model's
            assert measured_s < row.epoch_s < 1.05 * measured_s
            assert row.time_source == "measured steps of one rank, and a model's all-reduce"
        assert row.epoch_high_s / row.epoch_low_s < (
            modelled[row.trial].epoch_high_s / modelled[row.trial].epoch_low_s
        )
        assert row.fits == modelled[row.trial].fits and row.pilot_memory_bytes == 3 * GIB


def test_a_pilot_out_of_memory_decides_whatever_was_estimated(tmp_path):
    for site in (CARD, WORKSTATION):
        study = predicted(tmp_path / site["machine"], site=site)
        first = next(iter(study.requests))
        pilot(study, out_of_memory=[first])
        row, *others = plan_rows(study)
        assert (row.fits, row.out_of_memory_chance) == ("will not fit", 1.0)
        assert all(other.fits != "will not fit" for other in others)
        assert any("will not fit" in one for one in limits.sentences(study, [row, *others]))


def test_an_evaluation_out_of_memory_keeps_a_trial_from_fitting(tmp_path):
    study = study_in(tmp_path, site=WORKSTATION)
    build_store(study)
    pilot(study, evaluated=Status.OUT_OF_MEMORY)
    assert {row.fits for row in plan_rows(study)} == {"will not fit"}


def test_without_an_evaluation_a_trial_takes_what_is_asked_for_or_a_models(tmp_path):
    study = study_in(tmp_path / "cpu", site=WORKSTATION)
    build_store(study)
    pilot(study, evaluated=None)
    for row in plan_rows(study):
        assert (row.source, row.total_h, row.fits) == ("asked for", None, None)
        assert row.epoch_s is not None
    study = predicted(tmp_path / "card")
    modelled = {row.trial: row.total_h for row in plan_rows(study)}
    pilot(study, evaluated=None)
    for row in plan_rows(study):
        assert row.source == "predicted" and row.total_h != modelled[row.trial]
        assert row.time_source.endswith("a model's validation and test")


def test_a_pilot_of_another_card_says_nothing(tmp_path):
    study = predicted(tmp_path)
    pilot(study, device_name="NVIDIA H100 80GB HBM3")
    assert {row.time_basis for row in plan_rows(study)} == {"a model's"}
    pilot(study, device_name="NVIDIA A100-SXM4-40GB")
    assert {row.time_basis for row in plan_rows(study)} == {"measured steps"}


def test_a_pilot_tells_the_power(tmp_path):
    study = predicted(tmp_path, changed("defaults.walltime_min", 2880))
    pilot(study, step_s=0.5, energy_j=20 * 0.5 * 333.0)
    for row in plan_rows(study):
        power_w = 1000 * row.energy_kj / (3600 * row.hours_used)
        assert (
            power_w == pytest.approx(333.0) and row.energy_source == "power measured in its pilot"
        )


def test_what_a_guard_leaves_out_is_said_without_a_word_against_it(tmp_path):
    for site in (CARD, WORKSTATION):
        values = changed("skip_predicted_out_of_memory", True)
        study = study_in(tmp_path / site["machine"], values, site)
        build_store(study)
        pilot(study, out_of_memory=list(study.requests)[:1])
        study = applied(decide(study, Forecaster(study)), study)
        said = limits.sentences(study, plan_rows(study))
        assert any("not run (skip_predicted_out_of_memory)" in one for one in said)
        assert not any(one.startswith("skip_predicted_out_of_memory") for one in said)


def test_a_pilot_out_of_memory_is_kept_beside_its_trial(tmp_path):
    study = study_in(tmp_path, site=WORKSTATION)
    build_store(study)
    first, *_ = study.requests
    pilot(study, out_of_memory=[first])
    freeze_predictions(study, [first])
    kept = read_json(prediction_path(study.results, first))["memory"]
    assert kept["out_of_memory_chance"] == 1.0 and kept["peak_bytes"] is None


def test_outcomes_of_the_same_configuration_take_over(tmp_path):
    study = predicted(tmp_path)
    pilot(study)
    first = next(iter(study.requests))
    twin = replace(study.requests[first].trial, seed=77, epochs=9)
    finish(study, None, trial=twin, epoch_s=123.0)
    found = Forecaster(study).of(study.requests[first]).time
    assert (found.epoch_s, found.used, str(found.basis)) == (123.0, (twin.id,), "outcomes")
    assert found.low_s < 123.0 < found.high_s


def test_an_outcome_speaks_for_another_seeds_draw_of_its_data_set(tmp_path):
    """Whose store is not built yet."""
    unseen = {"setting": "inductive", "unseen": 0.2}
    study = study_in(tmp_path, changed("dataset", {**GOOD["dataset"], **unseen}))
    scaling = next(one for one in study.experiments if one.name == "scaling")
    requests = [study.requests[trial_id] for trial_id in scaling.trials]
    first, second = (r for r in requests if r.trial.ranks == 1)
    assert (first.trial.seed, second.trial.seed) == (0, 1) and first.store != second.store
    probe(study)
    Path(path_of(study.results, second.store)).unlink()
    finish(study, first.trial.id, epoch_s=123.0)
    assert Forecaster(study).of(second).time.epoch_s == 123.0
    others = study_in(tmp_path, changed("dataset", {**GOOD["dataset"], **unseen, "unseen": 0.3}))
    assert all(Forecaster(others).of(one).time is None for one in others.requests.values())


def test_outcomes_from_before_there_were_kernels_say_nothing(tmp_path):
    study = predicted(tmp_path)
    first, *_ = [k for k, r in study.requests.items() if r.trial.asks_for_kernels]
    twin = replace(study.requests[first].trial, seed=77, epochs=9)
    finish(study, None, trial=twin, epoch_s=123.0, kernels_used=None)
    assert str(Forecaster(study).of(study.requests[first]).time.basis) == "a model's"


@pytest.mark.parametrize("piloted", [False, True])
def test_outcomes_correct_what_is_alike_and_never_speak_for_themselves(tmp_path, piloted):
    study = predicted(tmp_path)
    if piloted:
        pilot(study)
    first, second, *_ = [k for k, r in study.requests.items() if r.trial.engine == "blocks"]
    other = next(k for k, r in study.requests.items() if r.trial.engine == "reference")
    alone = {name: Forecaster(study).of(study.requests[name]) for name in (first, second, other)}
    finish(study, first, epoch_s=10 * alone[first].time.epoch_s)
    assert Forecaster(study, without=[first]).of(study.requests[first]).time == alone[first].time
    corrected = Forecaster(study).of(study.requests[second])
    assert corrected.time.epoch_s == pytest.approx(10 * alone[second].time.epoch_s)
    assert corrected.time.used == (first,) and str(corrected.time.basis) == "outcomes"
    assert "times the median ratio of 1 outcome" in corrected.time.source
    assert Forecaster(study).of(study.requests[other]).time == alone[other].time


def test_an_outcome_of_another_machine_says_nothing(tmp_path):
    study = predicted(tmp_path)
    first, *_ = study.requests
    alone = Forecaster(study).of(study.requests[first])
    finish(study, None, trial=replace(study.requests[first].trial, machine="another"), epoch_s=9.9)
    assert Forecaster(study).of(study.requests[first]) == alone


@pytest.mark.parametrize("site", [CARD, WORKSTATION])
@pytest.mark.parametrize("lacks", ["trial", "store", "sample", "ranks", "timing", "epochs"])
def test_a_torn_or_foreign_outcome_leaves_the_plan_as_it_was(tmp_path, site, lacks):
    study = predicted(tmp_path, site=site)
    rows = plan_rows(study)
    other = replace(next(iter(study.requests.values())).trial, seed=77)
    path = outcome_path(study.results, other.id)
    whole = finish(study, None, trial=other)
    newer = {**whole, "trial": {**whole["trial"], "newer_than_this": 1}}
    torn = {name: value for name, value in whole.items() if name != lacks}
    says_times = lacks in ("sample", "ranks", "epochs")
    for outcome in (newer, torn, {**whole, lacks: None}):
        write_json(path, outcome)
        if outcome is newer or not says_times:
            assert [r.epoch_s for r in plan_rows(study)] == [r.epoch_s for r in rows]
        assert len(plan_rows(study)) == len(rows)


def test_a_card_without_the_precision_is_not_timed(tmp_path):
    study = predicted(
        tmp_path, changed("defaults.precision", "bf16"), {**CLUSTER, "card": "V100-32GB"}
    )
    assert {(row.source, row.fits is None) for row in plan_rows(study)} == {("asked for", False)}


@pytest.mark.parametrize(("card_bytes", "on_card"), [(3.3e9, False), (3.9e9, True)])
def test_memory_and_time_are_of_the_same_placement(tmp_path, monkeypatch, card_bytes, on_card):
    """Index and features take 1.5 GB, the CUDA context 0.5 GB: decided once for both."""
    card = replace(card_of("A100-40GB"), memory_bytes=int(card_bytes))
    monkeypatch.setitem(CARDS, "A100-40GB", card)
    study = predicted(tmp_path)
    request = next(r for r in study.requests.values() if r.trial.engine == "blocks")
    forecaster = Forecaster(study)
    forecast = forecaster.of(request)
    cost = forecaster.probes[request.store].cost_of(request.trial, card.memory_bytes)
    assert cost.placement == ("device" if on_card else "host")
    assert ("graph and features" in forecast.memory.parts) == on_card
    placed = roofline(request.trial, cost, forecast.sample, PRODUCTS, card, 1)
    assert forecast.time == placed


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


def test_a_shared_trial_counts_once_in_the_sum(tmp_path):
    twin = {"axis": "batch_size", "product": {"ranks": [1, 2, 4]}, "seeds": [0, 1]}
    study = study_in(tmp_path, changed("experiments.twin", twin))
    *_, everything = totals(plan_rows(study))
    assert everything.trials == 12


def test_the_csv_has_a_row_for_each_experiment_and_trial(tmp_path):
    study = predicted(tmp_path)
    text = as_csv(plan_rows(study), device_word(study))
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
    assert ("GPU" in as_text(study, rows)) == gpu
    assert ("gpu" in as_csv(rows, device_word(study))) == gpu


def test_more_rows_than_one_reads_are_left_to_the_csv(tmp_path):
    study = study_in(tmp_path, changed("experiments.scaling.seeds", list(range(150))))
    lines = as_text(study, plan_rows(study)).splitlines()
    assert len(lines) < 20


def test_a_site_that_is_not_filled_in_is_said_first(tmp_path):
    study = study_in(tmp_path, site={**CARD, "account": "p200EDIT"})
    said, *_ = limits.sentences(study, plan_rows(study))
    assert said == "The site of cluster still holds placeholders, in account."


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
