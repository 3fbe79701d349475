"""Where graph and features are is decided from sizes, and changes nothing of what is computed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sagebench.engines.base import make_engine
from sagebench.engines.loaders import choose_placement
from sagebench.errors import UserError
from sagebench.sampling.order import SeedOrder
from sagebench.units import GIB
from trials import make_trial, tiny_store

CPU = torch.device("cpu")


def sizes(graph_gib, features_gib):
    """A store of such sizes."""
    return SimpleNamespace(
        colptr=SimpleNamespace(nbytes=0),
        row=SimpleNamespace(nbytes=int(graph_gib * GIB)),
        features=SimpleNamespace(nbytes=int(features_gib * GIB)),
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("store") / "tiny")


@pytest.mark.parametrize(
    ("graph_gib", "features_gib", "available_gib", "chosen"),
    [
        (0.5, 1.0, 40, "device"),
        (0.5, 1.0, 5.5, "device"),  # exactly: 4 GiB are left
        (0.5, 1.0, 5.4, "device"),  # more than half is left
        (0.5, 1.0, 3.0, "device"),
        (0.5, 1.0, 2.9, "host"),
        (20, 16.1, 40, "host"),
        (20, 15.9, 40, "device"),
        (0.5, 1.0, 0, "host"),
        (0.5, 1.0, None, "mapped"),
    ],
)
def test_auto_follows_from_the_sizes(graph_gib, features_gib, available_gib, chosen):
    available = None if available_gib is None else int(available_gib * GIB)
    placement = choose_placement(make_trial(), sizes(graph_gib, features_gib), available)
    assert placement.chosen == chosen
    assert placement.to_json() == {
        "chosen": chosen,
        "features_dtype": "float32",
        "graph_bytes": int(graph_gib * GIB),
        "features_bytes": int(features_gib * GIB),
        "available_bytes": available,
    }


def test_features_of_bf16_are_half_as_large_on_a_device():
    of_bf16 = choose_placement(make_trial(precision="bf16"), sizes(1, 16), 40 * GIB)
    assert of_bf16.features_bytes == 8 * GIB
    assert of_bf16.features_dtype == "bfloat16"


@pytest.mark.parametrize("wanted", ["device", "host"])
@pytest.mark.parametrize("available", [None, 0, 1 << 40])
def test_a_forced_placement_is_obeyed(wanted, available):
    assert choose_placement(make_trial(placement=wanted), sizes(1, 1), available).chosen == wanted


def epoch_of(store, **values):
    """(logits, gradients) of every micro-batch of an epoch, weights left as they are."""
    trial = make_trial(dropout=0.5, **values)
    torch.manual_seed(1)
    engine = make_engine(trial, store, CPU)
    order = SeedOrder(store.train, trial.batch_size, trial.accumulation, 1, trial.seed)
    found = []
    for batch in engine.stream(order.micro_batches(1, 0)):
        if not len(batch.labels):
            continue
        engine.model.zero_grad()
        logits = engine.model(*batch.inputs)
        torch.nn.functional.cross_entropy(logits.float(), batch.labels).backward()
        found.append((logits.detach(), [p.grad for p in engine.model.parameters()]))
    return engine, found


@pytest.mark.parametrize("aggregator", ["mean", "max"])
@pytest.mark.parametrize("workers", [0, 2])
def test_placements_compute_the_same(store, workers, aggregator):
    values = {"sampling_workers": workers, "aggregator": aggregator}
    engine, expected = epoch_of(store, **values)
    assert engine.placement.chosen == "mapped"
    for placement in ("device", "host"):
        engine, found = epoch_of(store, placement=placement, **values)
        assert engine.placement.chosen == placement
        assert len(found) == len(expected)
        for (logits, gradients), (other, others) in zip(found, expected, strict=True):
            assert torch.equal(logits, other)
            assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))


@pytest.mark.parametrize("placement", ["auto", "device", "host"])
def test_a_batch_is_sampled_and_loaded_step_by_step_too(store, placement):
    engine = make_engine(make_trial(placement=placement), store, CPU)
    micro_batch = next(SeedOrder(store.train, 16, 1, 1, 0).micro_batches(1, 0))
    batch = engine.load(engine.sample(micro_batch))
    streamed = next(engine.stream([micro_batch]))
    np.testing.assert_array_equal(batch.labels, store.labels[micro_batch.seeds])
    assert torch.equal(engine.model(*batch.inputs), engine.model(*streamed.inputs))


def test_without_a_copy_on_a_cpu(store):
    engine = make_engine(make_trial(), store, CPU)
    assert engine.loader.features.data_ptr() == store.features.ctypes.data


def test_pygs_engines_have_no_placement(store):
    with pytest.raises(UserError, match="write placement: auto"):
        make_engine(make_trial(engine="trimmed", placement="host"), store, CPU)
