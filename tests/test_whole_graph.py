"""Training on the whole graph is what PyG's layers do over it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from configurations import GOOD, changed, study_of
from sagebench.engines.base import network_arguments
from sagebench.engines.pyg import PygNetwork
from sagebench.errors import UserError
from sagebench.methods.whole_graph import WholeGraphEngine
from sagebench.sampling.order import SeedOrder
from trial_runs import Run
from trials import make_trial, tiny_store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("store") / "tiny")


@pytest.mark.parametrize("model", ["gcn", "sage", "mlp"])
def test_logits_and_gradients_are_pygs_over_the_whole_graph(store, model):
    trial = make_trial(model=model, fanout=[0, 0, 0], batch_size=len(store.train), accumulation=1)
    engine = WholeGraphEngine(trial, store, CPU)
    peer = PygNetwork(**network_arguments(trial, store), layout="whole")
    peer.load_state_dict(engine.model.state_dict())
    (micro_batch,) = SeedOrder(store.train, len(store.train), 1, 1, 0).micro_batches(1, 0)
    batch = engine.load(engine.sample(micro_batch))
    column = np.repeat(np.arange(store.num_nodes), np.diff(store.colptr))
    logits = peer(
        torch.from_numpy(np.array(store.features)),
        torch.from_numpy(np.stack([store.row.astype(np.int64), column])),
        (store.num_nodes, 0, 0, 0),
        (store.num_edges, 0, 0),
        torch.from_numpy(np.diff(store.colptr)).float() if model == "gcn" else None,
    )[torch.from_numpy(micro_batch.seeds)]
    found = engine.model(*batch.inputs)
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)
    for one, other in ((found, engine.model), (logits, peer)):
        torch.nn.functional.cross_entropy(one, batch.labels).backward()
        assert all(parameter.grad is not None for parameter in other.parameters())
    for mine, theirs in zip(engine.model.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_a_trial_takes_one_step_an_epoch_and_learns(tmp_path, store):
    trial = make_trial(method="whole_graph", model="gcn", epochs=30, learning_rate=0.05)
    run = Run(tmp_path / "run", trial, store.path)
    finished = run.finish()
    assert finished.returncode == 0, finished.stderr
    outcome = run.outcome
    assert [epoch["steps"] for epoch in outcome["epochs"]] == [1] * 30
    assert {epoch["seeds"] for epoch in outcome["epochs"]} == {len(store.train)}
    assert outcome["epochs"][-1]["loss"] < outcome["epochs"][0]["loss"]
    assert outcome["accuracy"]["test_full"] > 1 / store.num_classes
    assert outcome["accuracy"]["test_sampled"] is None
    assert outcome["trial"]["method"] == "whole_graph"


def test_out_of_memory_is_a_result(tmp_path, store):
    trial = make_trial(method="whole_graph", hidden_channels=2048, memory_limit_gib=0.02)
    run = Run(tmp_path / "run", trial, store.path)
    assert run.finish().returncode == 0
    assert run.outcome["status"] == "out_of_memory"
    assert run.outcome["reason"]["limit"]["value"] == 0.02


@pytest.mark.parametrize("model", ["gcn", "sage", "mlp"])
def test_what_comes_before_the_cap_is_of_one_node(store, model):
    trial = make_trial(method="whole_graph", model=model)
    engine = WholeGraphEngine(trial, store, CPU)
    rows = []
    engine.model.register_forward_hook(lambda _, inputs, found: rows.append((inputs[1], found)))
    order = SeedOrder(store.train, len(store.train), 1, 1, 0)
    (micro_batch,) = order.micro_batches(1, 0)
    batch = engine.smallest_batch(replace(micro_batch, seeds=micro_batch.seeds[-1:]))
    logits = engine.model(*batch.inputs)
    torch.nn.functional.cross_entropy(logits, batch.labels).backward()
    ((read, found),) = rows
    assert (len(read), len(found)) == (1, 1)
    assert batch.labels.tolist() == store.labels[micro_batch.seeds[-1:]].tolist()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"method": "sage"}, "; sage is a model: write model: sage"),
        (
            {"method": "whole_graph", "ranks": 2},
            "ranks means nothing to method whole_graph: leave it out",
        ),
        (
            {"model": "mlp", "layers": 2, "fanout": [5, 0]},
            "fanout is [5, 0]: write [0, 0]: model mlp reads no neighbors",
        ),
        (
            {"method": "whole_graph", "batch_size": 8},
            "batch_size means nothing to method",
        ),
        (
            {"method": "label_propagation", "correct_and_smooth": True},
            "write null, or leave it out",
        ),
    ],
)
def test_what_means_nothing_is_refused_in_a_sentence(row, said):
    with pytest.raises(UserError) as error:
        study_of(changed("experiments.scaling", {"axis": "ranks", "list": [row]}))
    assert said in str(error.value)


def test_a_model_of_features_takes_no_neighbors_of_the_defaults():
    rows = [{"model": "mlp", "layers": 3}, {"model": "sage"}]
    study = study_of(changed("experiments.scaling", {"axis": "model", "list": rows}))
    fanouts = {one.trial.model: tuple(one.trial.fanout) for one in study.requests.values()}
    assert fanouts == {"mlp": (0, 0, 0), "sage": (15, 10, 10, 10, 10)}


def test_without_correct_and_smooth_no_id_moves():
    ids = set(study_of(GOOD).requests)
    given = changed("defaults", {"epochs": 3, "correct_and_smooth": False})
    assert set(study_of(given).requests) == ids
    smoothed = changed("defaults", {"epochs": 3, "correct_and_smooth": True})
    assert not set(study_of(smoothed).requests) & ids
