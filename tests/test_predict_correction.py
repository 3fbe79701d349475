"""Predictions corrected by outcomes that are there already."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from outcome_factory import STORES, make_outcome
from sagebench.grid.trial import Trial
from sagebench.predict.correction import NONE, PHASES, History, Observation
from sagebench.predict.energy import epoch_energy, measured_power
from sagebench.predict.samples import GraphFacts, Sample, Spread
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


def sample_of(trial: Trial) -> Sample:
    """Hops of a made graph, where nothing repeats."""
    nodes, edges = [float(trial.batch_size)], []
    for k in trial.fanout:
        edges.append(nodes[-1] * k)
        nodes.append(edges[-1] * 0.9)

    def each(value: float) -> Spread:
        return Spread(value, value, 0.0, value)

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


def predict(trial: Trial, history: History | None = None, rates=RATES):
    return epoch_time(trial, sample_of(trial), graph(), rates, history)


def outcome_of(trial: Trial, slower: float, *, phases: dict[str, float] | None = None, **values):
    """An outcome that took `slower` times its prediction; phases: their own factors, or none."""
    sample = sample_of(trial)
    predicted = predict(trial)
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


def test_a_ratio_that_some_outcomes_lack_is_averaged_over_the_others():
    observations = [
        Observation("a", ("same",), (0.0,), {"whole": math.log(2), "test": math.log(3)}),
        Observation("b", ("same",), (0.0,), {"whole": math.log(2)}),
    ]
    corrected = History(observations).correct(("same",), (0.0,))
    assert corrected.factors == {"test": pytest.approx(3)}
    assert History(observations).correct(("another",), (0.0,)) is NONE


def test_energy_is_of_the_card_or_of_outcomes():
    from sagebench.predict.cards import card_rates

    rates = card_rates("A100-40GB")
    trial = slides_trial(ranks=4)
    guessed = epoch_energy(trial, 100.0, rates)
    assert guessed.joules == pytest.approx(0.7 * 400 * 4 * 100)
    assert guessed.source == "70% of A100-40GB's 400 W"
    outcome = make_outcome(trial.to_json())
    outcome["energy"]["nvml_j"] = 4 * 300 * outcome["timing"]["training_s"]
    measured = epoch_energy(
        trial,
        100.0,
        rates,
        measured_power([outcome, make_outcome({**trial.to_json(), "device": "cpu"})]),
    )
    assert measured.joules == pytest.approx(300 * 4 * 100)
    assert measured.source == "power measured in 1 outcome"
    assert epoch_energy(trial_of(), 100.0, RATES) is None
