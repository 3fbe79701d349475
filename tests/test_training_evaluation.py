"""The full evaluation is PyG's forward over the full graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ranks import run_ranks
from sagebench.engines.base import make_engine, network_arguments
from sagebench.engines.loaders import Loader
from sagebench.engines.pyg import PygNetwork
from sagebench.graph.store import GraphStore
from sagebench.models.base import Layer
from sagebench.sampling.blocks import torch_view
from sagebench.training import evaluation
from sagebench.training.distributed import Communicator, Progress, RankEnvironment
from sagebench.training.evaluation import Evaluator, sampled_test_nodes, standard_error
from trials import make_trial, tiny_store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("store") / "tiny")


def make_model(trial, store) -> PygNetwork:
    torch.manual_seed(3)
    return PygNetwork(**network_arguments(trial, store), layout="whole").eval()


def pyg_logits(trial, store) -> torch.Tensor:
    edge_index = np.stack(
        [store.row.astype(np.int64), np.repeat(np.arange(store.num_nodes), np.diff(store.colptr))]
    )
    layers = trial.layers
    with torch.no_grad():
        return make_model(trial, store)(
            torch.from_numpy(np.array(store.features)),
            torch.from_numpy(edge_index),
            (store.num_nodes, *[0] * layers),
            (edge_index.shape[1], *[0] * (layers - 1)),
            torch.from_numpy(np.diff(store.colptr)).float() if trial.model == "gcn" else None,
        )


class Recorder(Evaluator):
    """Keeps the logits that accuracy throws away."""

    def _correct(self, logits, nodes):
        self.seen = [*getattr(self, "seen", []), (nodes, logits)]
        return super()._correct(logits, nodes)

    def logits(self, nodes):
        at = torch.cat([ids for ids, _ in self.seen])
        assert torch.equal(at, torch_view(nodes))
        return torch.cat([logits for _, logits in self.seen])


def make_evaluator(trial, store, loader=None, place=None):
    communicator = Communicator(place or RankEnvironment(), CPU)
    loader = loader or Loader(trial, store, CPU, "mapped")
    return Recorder(trial, store, communicator, loader, Progress(False))


MODELS = [
    *({"model": "sage", "aggregator": aggregator} for aggregator in ("mean", "sum", "max")),
    {"model": "gat", "options": {"heads": 2}},
    {"model": "gcn"},
    {"model": "gin"},
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: "-".join(map(str, model.values())))
@pytest.mark.parametrize("hidden", [4, 10, 16])  # narrower than the features, as wide, wider
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_logits_are_pygs(store, monkeypatch, model, hidden, layers):
    monkeypatch.setattr(evaluation, "ROWS_PER_CHUNK", 128)
    trial = make_trial(
        layers=layers, fanout=[2] * layers, hidden_channels=hidden, dropout=0.5,
        precision="bf16", **model,
    )  # fmt: skip
    expected = pyg_logits(trial, store)
    weights = make_model(trial, store).state_dict()
    every = np.arange(store.num_nodes)
    for nodes in (every, np.array(store.test), every[::7]):
        evaluator = make_evaluator(trial, store)
        accuracy = evaluator.accuracy(weights, nodes, "full")
        torch.testing.assert_close(evaluator.logits(nodes), expected[nodes], rtol=1e-5, atol=1e-5)
        hits = expected[nodes].argmax(1).numpy() == store.labels[nodes]
        assert accuracy == pytest.approx(hits.mean())


@pytest.mark.parametrize("method", ["full", "sampled"])
@pytest.mark.parametrize("placement", ["device", "host"])
def test_placement_changes_nothing(store, placement, method):
    trial = make_trial(placement=placement)
    weights = make_model(trial, store).state_dict()
    found, expected = (
        make_evaluator(trial, store, loader)
        for loader in (make_engine(trial, store, CPU).loader, None)
    )
    for evaluator in (found, expected):
        evaluator.accuracy(weights, store.test, method)
    torch.testing.assert_close(found.logits(store.test), expected.logits(store.test))


@pytest.mark.parametrize("aggregator", ["mean", "sum", "max"])
def test_what_does_not_fit_comes_some_columns_at_a_time(store, monkeypatch, aggregator):
    monkeypatch.setattr(evaluation, "ROWS_PER_CHUNK", 128)
    trial = make_trial(precision="bf16", placement="device", aggregator=aggregator)
    weights = make_model(trial, store).state_dict()
    taken = []
    reduce = Layer.reduce

    def seen(layer, z, edges, own=None):
        taken.append(z.shape[1])
        return reduce(layer, z, edges, own)

    monkeypatch.setattr(Layer, "reduce", seen)

    def logits(free_bytes):
        monkeypatch.setattr(evaluation, "available_bytes", lambda *_: free_bytes)
        evaluator = make_evaluator(trial, store, make_engine(trial, store, CPU).loader)
        evaluator.accuracy(weights, store.test, "full")
        return evaluator.logits(store.test)

    expected = logits(None)
    assert min(taken) > 3
    found = logits(store.num_nodes * 4 * 3 * 2)
    assert min(taken) <= 3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def accuracies(place, folder):
    store = GraphStore.open(folder)
    trial = make_trial(ranks=place.world_size)
    evaluator = make_evaluator(trial, store, place=place)
    weights = make_model(trial, store).state_dict()
    found = [evaluator.accuracy(weights, store.test, method) for method in ("full", "sampled")]
    evaluator.communicator.close()
    return found


def test_ranks_share_it(store):
    alone = run_ranks(1, accuracies, str(store.path))[0]
    assert run_ranks(3, accuracies, str(store.path)) == [alone] * 3


@given(
    ids=st.lists(st.integers(0, 10_000), min_size=1, max_size=200, unique=True),
    count=st.one_of(st.none(), st.integers(1, 250)),
)
def test_the_tested_nodes_are_a_part_of_the_test_nodes(ids, count):
    nodes = np.array(ids, dtype=np.int64)
    found = sampled_test_nodes(nodes, count)
    assert len(found) == min(len(nodes), count or len(nodes))
    at = [ids.index(node) for node in found]
    assert at == sorted(set(at))  # in their order, none twice
    turned = sampled_test_nodes(nodes[::-1], count)
    assert set(found) == set(turned)  # a function of the ids alone


def test_the_tested_nodes_stand_for_all():
    """160 of 2,000 nodes, of which the first half is classed right: a fair draw has 80 +- 19."""
    assert abs((sampled_test_nodes(np.arange(2000), 160) < 1000).sum() - 80) < 19


def test_the_standard_error_is_that_of_drawing():
    rng = np.random.default_rng(0)
    right = np.arange(1000) < 700
    drawn = [rng.choice(right, 250, replace=False).mean() for _ in range(4000)]
    assert standard_error(0.7, 250, 1000) == pytest.approx(np.std(drawn), rel=0.05)
    assert standard_error(0.7, 1000, 1000) == 0
    assert standard_error(1.0, 1, 1000) is None
    assert standard_error(0.8, 160_000, 2_200_000) == pytest.approx(0.001, rel=0.05)
