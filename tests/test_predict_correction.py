"""Predictions corrected by outcomes that are there already."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from outcome_factory import STORES, make_outcome
from sagebench.grid.trial import Trial
from sagebench.predict.cards import card_rates
from sagebench.predict.correction import NONE, PHASES, History, Observation
from sagebench.predict.energy import measured_power, power_of
from sagebench.predict.probe import Probe
from sagebench.predict.samples import GraphFacts, Sample, Spread, sample_name
from sagebench.predict.time import epoch_time, graph_of, history_of, observe
from test_predict_rates import cpu_rates
from test_predict_time import slides_trial

CPU = "AMD EPYC 7452 32-Core Processor"
RATES = cpu_rates(device_name=CPU)


def trial_of(**values) -> Trial:
    return Trial.from_json(
        {
            "dataset": {"name": "pubmed", "source": "pubmed", "split": "large"},
            "layers": 3,
            "hidden_channels": 32,
            "fanout": [10, 5, 5],
            "accumulation": 1,
            "epochs": 4,
            "device": "cpu",
            "machine": "local",
            **values,
        }
    )


def sample_of(trial: Trial, variation: float = 0.0) -> Sample:
    """Hops of a made graph, where nothing repeats. variation: of micro-batches' sizes."""
    nodes, edges = [float(trial.batch_size)], []
    for k in trial.fanout:
        edges.append(nodes[-1] * k)
        nodes.append(edges[-1] * 0.9)

    def each(value: float) -> Spread:
        return Spread(value, value, variation * value)

    return Sample(
        trial.fanout,
        trial.batch_size,
        4,
        True,
        tuple(map(each, nodes)),
        tuple(map(each, edges)),
        each(sum(nodes)),
        each(sum(edges)),
    )


def graph() -> GraphFacts:
    outcome = {"store": {"name": "pubmed", **STORES["pubmed"]}}
    return graph_of(outcome)


def probe_of(*trials: Trial, variation: float) -> Probe:
    """Of the store that outcomes name."""
    samples = {
        sample_name(trial.fanout, trial.batch_size): sample_of(trial, variation) for trial in trials
    }
    return Probe(make_outcome(trial_of().to_json())["store"]["checksum"], graph(), samples)


def predict(trial: Trial, history: History | None = None, rates=RATES, variation: float = 0.0):
    return epoch_time(trial, sample_of(trial, variation), graph(), rates, history)


def outcome_of(
    trial: Trial,
    slower: float,
    *,
    phases: dict[str, float] | None = None,
    rates=RATES,
    variation: float = 0.0,
    **values,
):
    """An outcome that took `slower` times its prediction; phases: their own factors, or none."""
    sample = sample_of(trial)
    predicted = predict(trial, None, rates, variation)
    outcome = make_outcome(trial.to_json(), epoch_s=slower * predicted.epoch_s, **values)
    outcome["sample"] = {
        "nodes_per_hop": [spread.mean for spread in sample.nodes_per_hop],
        "edges_per_hop": [spread.mean for spread in sample.edges_per_hop],
    }
    outcome["phases"] = None
    if phases is not None:
        outcome["phases"] = {
            f"{name}_s": predicted.phases[f"{name}_s"] * phases[name] or None for name in PHASES
        }
    return outcome


def test_exact_ratios_are_recovered():
    before = [trial_of(batch_size=size) for size in (64, 128, 256)]
    history = history_of([outcome_of(trial, 1.7) for trial in before], RATES)
    for trial in (*before, trial_of(batch_size=512), trial_of(fanout=[25, 5, 0])):
        raw, corrected = predict(trial), predict(trial, history)
        assert corrected.epoch_s == pytest.approx(1.7 * raw.epoch_s, rel=1e-9)
        assert corrected.used[0] in {t.id for t in before}


@pytest.mark.parametrize("slower", [1.0, 1.7])
@pytest.mark.parametrize("variation", [0.02, 0.1])
@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_stragglers_count_once(ranks, variation, slower):
    """An epoch that took as long as predicted, waiting for the slowest rank in it, says that the
    prediction is right, for as many ranks and for fewer."""
    before = trial_of(batch_size=128, ranks=ranks, accumulation=4)
    fewer = trial_of(batch_size=64, ranks=2, accumulation=4)
    outcome = outcome_of(before, slower, variation=variation)
    probe = probe_of(before, fewer, variation=variation)
    history = history_of([outcome], RATES, [probe])
    for trial in (before, fewer):
        raw, corrected = (predict(trial, past, RATES, variation) for past in (None, history))
        assert corrected.epoch_s == pytest.approx(slower * raw.epoch_s, rel=1e-9)


def test_a_probe_of_another_store_says_nothing_of_an_outcome():
    trial = trial_of(ranks=4)
    outcome = outcome_of(trial, 1.0)
    probe = replace(probe_of(trial, variation=0.1), store_checksum="another")
    history = history_of([outcome], RATES, [probe])
    assert predict(trial, history).epoch_s == pytest.approx(predict(trial).epoch_s, rel=1e-9)


def test_exact_ratios_of_phases_are_recovered():
    """Phases that are off by factors of their own, and an epoch that is their sum and a bit."""
    factors = dict(zip(PHASES, (1.5, 0.8, 2.0, 1.2, 1.0, 3.0), strict=True))
    before = [trial_of(batch_size=size, sampling_workers=0) for size in (64, 256)]
    outcomes = [outcome_of(trial, 1.0, phases=factors) for trial in before]
    for outcome, trial in zip(outcomes, before, strict=True):
        parts = [f"{name}_s" for name in PHASES]
        per_step = sum(outcome["phases"][part] or 0.0 for part in parts)
        outcome["timing"]["epoch_median_s"] = 1.1 * per_step * predict(trial).steps_per_epoch
    history = history_of(outcomes, RATES)
    other = trial_of(batch_size=128, sampling_workers=0)
    raw, corrected = predict(other), predict(other, history)
    for name in PHASES:
        if raw.phases[f"{name}_s"]:
            ratio = corrected.phases[f"{name}_s"] / raw.phases[f"{name}_s"]
            assert ratio == pytest.approx(factors[name])
    per_step = sum(corrected.phases.values())
    assert corrected.epoch_s == pytest.approx(1.1 * per_step * corrected.steps_per_epoch, rel=1e-6)


def test_no_outcomes_no_correction():
    trial = trial_of()
    raw = predict(trial)
    assert predict(trial, History()) == raw == predict(trial, history_of([], RATES))
    assert raw.used == () and raw.source == RATES.source


@pytest.mark.parametrize(
    "values",
    [
        {"engine": "reference"},
        {"machine": "other"},
        {"threads_per_rank": 2},
        {"precision": "bf16"},
    ],
)
def test_only_outcomes_of_the_same_engine_and_machine_count(values):
    history = history_of([outcome_of(trial_of(), 1.7)], RATES)
    trial = trial_of(**values)
    assert predict(trial, history) == predict(trial)


def test_another_processor_does_not_count():
    history = history_of([outcome_of(trial_of(), 1.7)], RATES)
    elsewhere = replace(RATES, device_name="another")
    assert predict(trial_of(), history, elsewhere) == predict(trial_of(), None, elsewhere)


@pytest.mark.parametrize("status", ["out_of_memory"])
def test_outcomes_without_timed_epochs_do_not_count(status):
    assert observe(outcome_of(trial_of(memory_limit_gib=0.1), 1.0, status=status), RATES) is None
    assert observe(make_outcome(trial_of(epochs=1).to_json()), RATES) is None


def test_an_outcome_that_the_rates_cannot_describe_is_passed_over():
    """A V100 trains in bf16, but not by any figure of its data sheet."""
    rates = card_rates("V100-32GB")
    plain, tensor = (
        trial_of(device="cuda", precision=precision, sampling_workers=0)
        for precision in ("fp32", "bf16")
    )
    outcomes = [
        outcome_of(plain, 1.5, rates=rates),
        make_outcome(tensor.to_json()) | {"sample": outcome_of(plain, 1.0, rates=rates)["sample"]},
    ]
    for outcome in outcomes:
        outcome["ranks"][0]["device_name"] = "Tesla V100-SXM2-32GB"
    corrected = predict(plain, history_of(outcomes, rates), rates)
    assert corrected.used == (plain.id,)
    assert corrected.epoch_s == pytest.approx(1.5 * predict(plain, None, rates).epoch_s)


@pytest.mark.parametrize("placement", ["host", "device", "mapped"])
def test_a_cpu_reads_in_its_memory_whatever_its_outcomes_placement(placement):
    """Nothing is copied to a device, at no rate that a CPU has."""
    trial = trial_of(placement=placement)
    outcome = outcome_of(trial, 1.7)
    outcome["placement"]["chosen"] = placement
    corrected = predict(trial, history_of([outcome], RATES))
    assert corrected.used == (trial.id,)
    assert corrected.epoch_s == pytest.approx(1.7 * predict(trial).epoch_s)


@pytest.mark.parametrize("lacks", ["timing", "sample", "store", "ranks"])
def test_what_does_not_say_enough_of_itself_says_nothing_of_others(lacks):
    whole = outcome_of(trial_of(), 1.7)
    assert observe(whole, RATES) is not None
    assert observe({**whole, lacks: None}, RATES) is None
    assert observe({name: whole[name] for name in whole if name != lacks}, RATES) is None


def test_what_an_outcome_need_not_say_it_may_leave_out():
    whole = outcome_of(trial_of(), 1.7)
    bare = {name: whole[name] for name in ("trial", "timing", "sample", "store", "ranks")}
    bare["ranks"] = [{"cpu_model": CPU}]
    assert predict(trial_of(), history_of([bare], RATES)).used == (trial_of().id,)


def test_the_nearest_outcome_counts_most():
    near, far = trial_of(batch_size=512, seed=1), trial_of(batch_size=16)
    history = history_of([outcome_of(far, 1.0), outcome_of(near, 2.0)], RATES)
    trial = trial_of(batch_size=512)
    corrected = predict(trial, history)
    assert corrected.used == (near.id, far.id)
    assert 1.9 < corrected.epoch_s / predict(trial).epoch_s <= 2.0
    assert corrected.source == f"{RATES.source}, corrected by 2 outcomes"


def width(prediction) -> float:
    return prediction.high_s / prediction.low_s


def test_the_interval_follows_spread_number_and_distance():
    trial = trial_of(batch_size=128)
    sizes = (96, 112, 144, 160)
    alike = [outcome_of(trial_of(batch_size=size), 1.5) for size in sizes]
    unlike = [
        outcome_of(trial_of(batch_size=size), slower)
        for size, slower in zip(sizes, (0.5, 3.0, 0.7, 2.5), strict=True)
    ]
    one = width(predict(trial, history_of(alike[:1], RATES)))
    four = width(predict(trial, history_of(alike, RATES)))
    assert four < one < width(predict(trial))
    assert width(predict(trial, history_of(unlike, RATES))) > four
    away = trial_of(batch_size=2048, hidden_channels=256)
    assert width(predict(away, history_of(alike, RATES))) > four


def test_what_else_was_measured_corrects_too():
    trial = trial_of()
    outcome = outcome_of(trial, 1.0)
    raw = predict(trial)
    outcome["timing"]["start_to_first_step_s"] = 2 * raw.start_s
    outcome["timing"]["test_s"] = 3 * raw.test_s
    for epoch in outcome["epochs"]:
        epoch["evaluation_s"] = epoch["evaluation_s"] and 4 * raw.evaluation_s
    corrected = predict(trial, history_of([outcome], RATES))
    assert corrected.start_s == pytest.approx(2 * raw.start_s)
    assert corrected.test_s == pytest.approx(3 * raw.test_s)
    assert corrected.evaluation_s == pytest.approx(4 * raw.evaluation_s)


@pytest.mark.parametrize(("measured", "other"), [("full", "sampled"), ("sampled", "full")])
def test_validations_of_one_method_do_not_correct_the_other(measured, other):
    trial = trial_of(validation=measured)
    outcome = outcome_of(trial, 1.0)
    for epoch in outcome["epochs"]:
        epoch["evaluation_s"] = epoch["evaluation_s"] and 4 * predict(trial).evaluation_s
    history = history_of([outcome], RATES)
    assert predict(trial, history).evaluation_s == pytest.approx(4 * predict(trial).evaluation_s)
    unlike = trial_of(validation=other)
    assert predict(unlike, history).evaluation_s == predict(unlike).evaluation_s


def test_a_ratio_that_some_outcomes_lack_is_averaged_over_the_others():
    observations = [
        Observation("a", ("same",), (0.0,), {"whole": math.log(2), "test": math.log(3)}),
        Observation("b", ("same",), (0.0,), {"whole": math.log(2)}),
    ]
    corrected = History(observations).correct(("same",), (0.0,))
    assert corrected.factors == {"test": pytest.approx(3)}
    assert History(observations).correct(("another",), (0.0,)) is NONE


def test_power_is_of_the_card_or_of_outcomes():
    rates = card_rates("A100-40GB")
    trial = slides_trial(ranks=4)
    watts, source = power_of(trial, rates, {})
    assert watts == pytest.approx(0.7 * 400 * 4)
    assert source == "70% of A100-40GB's 400 W"
    outcome = make_outcome(trial.to_json())
    outcome["energy"]["nvml_j"] = 4 * 300 * outcome["timing"]["training_s"]
    others = make_outcome({**trial.to_json(), "device": "cpu"})
    watts, source = power_of(trial, rates, measured_power([outcome, others]))
    assert watts == pytest.approx(4 * 300)
    assert source == "power measured in 1 outcome"
    assert power_of(trial_of(), RATES, {}) is None
