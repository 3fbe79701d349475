"""Memory and time of node2vec's vectors in a plan."""

from __future__ import annotations

import pytest
from outcome_factory import STORES, make_outcome, make_trial
from sagebench.embedding.train import Settings
from sagebench.estimate.cards import card_of
from sagebench.estimate.probe import GraphFacts
from sagebench.estimate.vectors import (
    pairs_of_pass,
    rows_of_batch,
    vectors_memory,
    vectors_time,
    vectors_total_s,
)
from sagebench.grid.trial import Trial
from sagebench.records import Outcome
from sagebench.registry import declared

OPTIONS = {
    key: option["default"]
    for key, option in declared("method", "node2vec")["OPTIONS"].items()
    if option["default"] is not None
}
PRODUCTS = GraphFacts(**STORES["ogbn-products"], index_bytes=0, feature_bytes=0)
CARD = card_of("A100-40GB")


def trial(device="cuda", **options):
    values = make_trial(method="node2vec", options={**OPTIONS, **options}, device=device)
    return Trial.from_json(values)


def outcome(seconds, device="cuda", **options):
    values = trial(device, **options).to_json()
    found = make_outcome(values)
    found["timing"] |= {"embedding_s": seconds, "total_s": seconds + 7}
    return Outcome.from_json(found)


def test_the_defaults_are_those_of_the_walks():
    for key, value in vars(Settings()).items():
        named = {"batch_size": "start_nodes", "learning_rate": "walk_learning_rate"}.get(key, key)
        assert OPTIONS[named] == value


def test_products_takes_what_ogb_says():
    """313.6 M weights, with SparseAdam's moments 3.8 GB."""
    memory = vectors_memory(trial(), PRODUCTS, CARD.memory_bytes)
    assert memory.parts["vectors"] == 4 * 128 * 2_449_029
    resident = memory.parts["vectors"] + memory.parts["optimizer"]
    assert resident == pytest.approx(3.8e9, rel=0.02)
    assert resident < memory.low_bytes < memory.peak_bytes < memory.high_bytes
    assert sum(memory.parts.values()) == memory.peak_bytes
    assert memory.out_of_memory_chance == 0


def test_what_does_not_fit_is_said():
    memory = vectors_memory(trial(dimension=4096), PRODUCTS, CARD.memory_bytes)
    assert memory.out_of_memory_chance > 0.99


def test_a_cpus_memory_is_not_estimated():
    assert vectors_memory(trial("cpu"), PRODUCTS, None) is None


def test_pairs_and_rows_are_those_of_the_walks():
    assert pairs_of_pass(OPTIONS, PRODUCTS) == 4180 * PRODUCTS.num_nodes
    assert rows_of_batch(OPTIONS) == 256 * 10 * 81
    assert rows_of_batch({**OPTIONS, "negatives": 5}) == 256 * 10 * (1 + 40 + 200)


def test_time_rests_on_outcomes_of_the_machine():
    pubmed = 4180 * STORES["pubmed"]["num_nodes"]
    seen = [outcome(10.0), outcome(20.0, walks_per_node=20), outcome(1.0, passes=3)]
    asked = trial(passes=2)
    took = vectors_time(asked, PRODUCTS, seen, CARD)
    assert took.basis == "outcomes" and len(took.used) == 3
    assert took.epoch_s == pytest.approx(4180 * PRODUCTS.num_nodes / (pubmed / 10.0))
    others_s = 7.0  # the median of what is not of the vectors
    assert vectors_total_s(asked, took) == pytest.approx(2 * took.epoch_s + others_s)


def test_time_grows_with_the_width_of_the_vectors():
    took = vectors_time(trial(dimension=256), PRODUCTS, [outcome(10.0)], None)
    assert took.epoch_s == 2 * vectors_time(trial(), PRODUCTS, [outcome(10.0)], None).epoch_s


def test_without_outcomes_it_is_a_models():
    took = vectors_time(trial(), PRODUCTS, [outcome(9.0, "cpu")], CARD)
    assert took.basis == "a model's" and 1 < took.epoch_s < 600
    assert vectors_total_s(trial(), took) is None
    assert took.low_s < took.epoch_s / 2 and took.high_s > 2 * took.epoch_s
    assert vectors_time(trial("cpu"), PRODUCTS, [], None) is None
