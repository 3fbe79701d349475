"""The last hop from a table: equal to a hop in which every neighbor is sampled."""

from dataclasses import replace

import pytest
import torch
from sagebench import registry
from sagebench.engines.aggregated_features import build_table
from sagebench.engines.base import make_engine
from sagebench.grid.last_hop import aggregates_features, table_aggregator
from sagebench.sampling.order import SeedOrder
from sagebench.training.trainer import LossModule
from trials import make_trial, tiny_store

CPU = torch.device("cpu")
MODELS = [("sage", "mean"), ("sage", "sum"), ("sage", "max"), ("gin", "mean")]
FANOUTS = [(4, -1), (4, 3, -1), (3, 0, -1), (-1, -1)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = tiny_store(tmp_path_factory.mktemp("store") / "tiny", nodes=900, train=200, hub=150)
    for aggregator in ("mean", "sum", "max"):
        list(build_table(store, aggregator))
    return store


def trial_of(fanout, model="sage", aggregator="mean", **values):
    return make_trial(
        model=model,
        aggregator=aggregator,
        fanout=list(fanout),
        layers=len(fanout),
        dropout=0.0,
        sampling_workers=0,
        **values,
    )


def step(trial, store, weights=None):
    """Loss, gradients and the batch of a micro-step."""
    torch.manual_seed(0)
    engine = make_engine(trial, store, CPU)
    if weights:
        engine.model.load_state_dict(weights)
    micro_batch = next(SeedOrder(store.train, 40, 1, 1, 0).micro_batches(1, 0))
    batch = engine.load(engine.sample(micro_batch))
    loss, _ = LossModule(engine.model.train())(batch.inputs, batch.labels)
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in engine.model.named_parameters()}, batch, engine


@pytest.mark.parametrize("placement", ["auto", "device", "host"])
@pytest.mark.parametrize("fanout", FANOUTS)
@pytest.mark.parametrize(("model", "aggregator"), MODELS)
def test_a_step_is_that_of_every_engine(store, model, aggregator, fanout, placement):
    trial = trial_of(fanout, model, aggregator, placement=placement)
    assert table_aggregator(trial)
    loss, gradients, batch, engine = step(trial, store)
    assert batch.edges_per_hop[-1] == 0
    for name in ("reference", "trimmed", "bipartite"):
        peer = replace(trial, engine=name, placement="auto", sampler="sagebench")
        assert table_aggregator(peer) is None
        expected, expected_gradients, full, _ = step(peer, store, engine.model.state_dict())
        assert full.edges_per_hop[:-1] == batch.edges_per_hop[:-1]
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
        largest = max(gradient.norm().item() for gradient in expected_gradients.values())
        for key, gradient in expected_gradients.items():
            assert (gradients[key] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6 * largest, (
                key
            )


@pytest.mark.parametrize(
    ("values", "aggregator"),
    [
        ({}, "mean"),
        ({"aggregator": "max"}, "max"),
        ({"model": "gin"}, "sum"),
        ({"sampler": "labor"}, "mean"),
        ({"engine": "trimmed"}, None),
        ({"model": "gat", "options": {"heads": 2}}, None),
        ({"model": "gcn"}, None),
        ({"fanout": [4, -1, 2]}, None),
        ({"fanout": [-1], "layers": 1}, None),
    ],
)
def test_which_trials_read_a_table(values, aggregator):
    assert table_aggregator(make_trial(**{"fanout": [4, 3, -1], **values})) == aggregator


def test_what_says_that_it_aggregates_features_has_an_aggregator():
    for name in registry.names("model"):
        declared = registry.declared("model", name)
        if "AGGREGATES_FEATURES" in declared:
            trial = make_trial(model=name)
            options = {"aggregator": "mean"} if "AGGREGATORS" in declared else {}
            layer = registry.load("model", name).Layer(4, 3, last=True, **options)
            assert layer.aggregator == aggregates_features(trial)
