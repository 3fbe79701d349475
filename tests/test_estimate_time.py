"""A roofline's time from recorded steps: its bounds, and the slides' hours as its oracle."""

from __future__ import annotations

from dataclasses import replace

import pytest
from probed import PRODUCTS
from sagebench.estimate.cards import CARDS, EFFICIENCY, OPERATION_S, card_of
from sagebench.estimate.step import step_cost
from sagebench.estimate.time import micro_steps_per_epoch, roofline, steps_per_epoch
from slides import SIZES, slides_sample, slides_trial

A100 = card_of("A100-40GB")
SLIDES_HOURS = {(15, 10, 10, 10, 10): 2.70, (15, 15, 15, 5, 5): 2.02, (15, 10, 10, 10, 0): 1.0}
"""of a training, over that of the last"""


@pytest.fixture(scope="module")
def recorded():
    """By fanout: a trial of `reference`, its sample, and its step's cost."""
    made = {}
    for fanout in SIZES:
        sample = slides_sample(fanout)
        trial = slides_trial("reference", sample, device="cuda", sampling_workers=8)
        made[fanout] = trial, sample, step_cost(trial, sample, PRODUCTS, "host", 1)
    return made


def time_of(trial, sample, cost, card=A100, nodes=1):
    return roofline(trial, cost, sample, PRODUCTS, card, nodes)


def test_the_slides_hours_stand_in_the_ratios_of_recorded_steps(recorded):
    """Nothing is fitted to them."""
    found = {fanout: time_of(*recorded[fanout]).epoch_s for fanout in SIZES}
    shortest = found[15, 10, 10, 10, 0]
    for fanout, hours in SLIDES_HOURS.items():
        assert found[fanout] / shortest == pytest.approx(hours, rel=0.15)


def test_a_step_takes_its_arithmetic_its_traffic_and_its_copy_or_its_launches(recorded):
    trial, sample, cost = recorded[15, 10, 10, 10, 10]
    trial = replace(trial, sampling_workers=100)  # they are not what it waits for
    bytes_s = cost.bytes_moved / (A100.bandwidth_gb_per_s * 1e9 * EFFICIENCY)
    flops_s = cost.flops / (A100.fp32_tflops * 1e12 * EFFICIENCY)
    copy_s = sum(cost.batch_bytes) / (A100.pcie_gb_per_s * 1e9)
    took = time_of(trial, sample, cost).micro_step_s
    assert took == pytest.approx(bytes_s + flops_s + copy_s)
    tiny = replace(cost, flops=1, bytes_moved=1)
    took = time_of(trial, sample, tiny).micro_step_s
    assert took == pytest.approx(cost.operations * OPERATION_S + copy_s)


def test_too_few_samplers_are_what_a_step_waits_for(recorded):
    trial, sample, cost = recorded[15, 10, 10, 10, 10]
    cost = replace(cost, flops=1, bytes_moved=1)
    alone, two = (
        time_of(replace(trial, sampling_workers=count), sample, cost).micro_step_s
        for count in (1, 2)
    )
    assert alone == pytest.approx(2 * two)
    in_turn = time_of(replace(trial, sampling_workers=0), sample, cost).micro_step_s
    assert in_turn > alone


def test_ranks_share_the_steps_and_add_their_gradients(recorded):
    trial, sample, cost = recorded[15, 10, 10, 10, 10]
    one, two = (time_of(replace(trial, ranks=ranks), sample, cost) for ranks in (1, 2))
    assert micro_steps_per_epoch(trial, PRODUCTS) == 1537 == -(-196_615 // 128)
    assert steps_per_epoch(trial, PRODUCTS) == -(-196_615 // (5 * 128))
    assert 0.5 * one.epoch_s < two.epoch_s < 0.52 * one.epoch_s
    apart = time_of(replace(trial, ranks=2), sample, cost, nodes=2)
    assert apart.epoch_s > two.epoch_s


def test_its_interval_is_wide_and_it_says_what_it_is(recorded):
    found = time_of(*recorded[15, 10, 10, 10, 10])
    assert found.high_s / found.low_s > 4
    assert str(found.basis) == "a model's" and "data sheet of A100-40GB" in found.source


def test_a_precision_that_a_card_lacks_has_no_time(recorded):
    trial, sample, cost = recorded[15, 10, 10, 10, 10]
    bf16 = replace(trial, precision="bf16")
    assert time_of(bf16, sample, cost, CARDS["V100-32GB"]) is None
    assert time_of(bf16, sample, cost).micro_step_s <= time_of(trial, sample, cost).micro_step_s
