"""A trial of node2vec: vectors of the training graph alone, the same after a kill; new nodes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from configurations import GOOD, changed, study_of
from ranks import run_ranks
from sagebench.embedding.walks import Walker
from sagebench.errors import UserError
from sagebench.graph.unseen import derive_unseen, without
from sagebench.methods.new_nodes import arrivals, numbers
from sagebench.registry import declared
from trial_runs import Run
from trials import DATASET, make_trial, sparse_store, tiny_store

SPECS = {
    setting: {**DATASET, "setting": setting, "unseen": 0.3, "split_seed": 4}
    for setting in ("transductive", "inductive")
}
SMALL = {"dimension": 16, "walk_length": 8, "context": 4, "walks_per_node": 2, "start_nodes": 100}


def make(setting="inductive", options=None, **values):
    own = declared("method", "node2vec")["OPTIONS"]
    defaults = {key: option["default"] for key, option in own.items()}
    given = {key: one for key, one in {**defaults, **SMALL, **(options or {})}.items() if one}
    return make_trial(method="node2vec", dataset=SPECS[setting], options=given, **values)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    base = tiny_store(folder / "tiny")
    return {setting: derive_unseen(folder / setting, base, spec) for setting, spec in SPECS.items()}


def job(place, trial, store, home, number, kill_at=None):
    """One rank of a job that is killed in place of the batch `kill_at`; saves before each."""
    from sagebench.embedding.train import Training
    from sagebench.methods import minibatch
    from sagebench.training import rank

    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    os.environ["SAGEBENCH_CHECKPOINT"] = f"{home}/checkpoint.pt"
    minibatch.SAVE_EVERY_S = 0.0
    taken = 0

    def counted(self, step=Training.step):
        nonlocal taken
        taken += 1
        if taken == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self)

    Training.step = counted
    code = rank.run_rank(trial, Path(store), Path(home, str(number)))
    Path(home, f"{number}.batches").write_text(str(taken))
    return code


def result(home, number):
    """Vectors, and what came of them."""
    state = torch.load(home / "checkpoint.pt", weights_only=True)
    best = torch.load(home / str(number) / "best.pt", weights_only=True)
    measured = json.loads((home / str(number) / "measured.json").read_text())
    return state["training"]["vectors"], best["model"], measured["accuracy"]


def test_killed_twice_it_comes_to_the_same_vectors_and_outcome(tmp_path, stores):
    trial, store = make(), str(stores["inductive"].path)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    assert run_ranks(1, job, trial, store, str(whole), 1) == [0]
    for number, kill_at in ((1, 4), (2, 6)):
        assert run_ranks(1, job, trial, store, str(cut), number, kill_at, killed=1) == [None]
    assert run_ranks(1, job, trial, store, str(cut), 3) == [0]
    taken, left = (int(path.read_text()) for path in (whole / "1.batches", cut / "3.batches"))
    assert left == taken - 3 - 5
    expected, found = result(whole, 1), result(cut, 3)
    assert torch.equal(found[0], expected[0])
    assert all(torch.equal(found[1][name], one) for name, one in expected[1].items())
    assert found[2] == expected[2]


@pytest.mark.parametrize("p_and_q", [(1, 1), (0.25, 4)])
def test_no_walk_and_no_negative_is_unseen(stores, p_and_q):
    store = stores["inductive"]
    walker = Walker(store.colptr, store.row, *p_and_q)
    starts = walker.connected
    assert not np.isin(starts, store.unseen).any()
    walks = walker.walks(starts, range(2), 8, 0, 1)
    negatives = walker.negatives(starts, range(2), (1, 8), 0, 1)
    assert not np.isin(walks, store.unseen).any()
    assert not np.isin(negatives, store.unseen).any()
    assert np.isin(stores["transductive"].unseen, walks).sum() == 0
    whole = Walker(store.whole.colptr, store.whole.row, *p_and_q)
    assert np.isin(store.unseen, whole.walks(whole.connected, range(2), 8, 0, 1)).all()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, stores):
    """An outcome for each setting, and one with features beside the vectors."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for name, setting, options in (
        ("transductive", "transductive", {}),
        ("inductive", "inductive", {}),
        ("beside", "inductive", {"beside_features": True}),
    ):
        layers = 1 if name == "beside" else 3
        values = {"layers": layers, "fanout": [0] * layers}
        trial = make(setting, options, epochs=10, evaluate_every_epochs=1, **values)
        run = Run(folder / name, trial, stores[setting].path)
        finished = run.finish()
        assert finished.returncode == 0, finished.stderr
        found[name] = run.outcome
    return found


def test_its_outcome_is_like_any_other(outcomes, stores):
    outcome = outcomes["inductive"]
    assert outcome["status"] == "completed"
    assert outcome["trial"]["method"] == "node2vec"
    timing = outcome["timing"]
    epochs_s = sum(epoch["time_s"] for epoch in outcome["epochs"])
    assert timing["training_s"] == pytest.approx(timing["embedding_s"] + epochs_s)
    hidden_layer = 16 * 16 + 16 + 2 * 16  # product, bias, norm
    assert outcome["parameters"] == 1500 * 16 + 2 * hidden_layer + 17 * 4
    assert outcome["memory"]["peak_host_private_bytes"] > 0
    assert outcome["store"]["unseen_nodes"] == len(stores["inductive"].unseen)


def test_the_features_beside_the_vectors_are_read(outcomes):
    """The labels of the tiny store follow from its features, and hardly from its edges."""
    assert outcomes["beside"]["accuracy"]["unseen"] > 0.6
    assert outcomes["inductive"]["accuracy"]["unseen"] < 0.5
    assert outcomes["beside"]["parameters"] == 1500 * 16 + (16 + 10 + 1) * 4


def test_new_nodes_are_embedded_two_ways(outcomes, stores):
    most = len(stores["inductive"].unseen)
    assert outcomes["transductive"]["new_nodes"] == []
    found = outcomes["inductive"]["new_nodes"]
    for way in ("frozen_update", "mean_of_neighbors"):
        rows = [one for one in found if one["way"] == way]
        assert [one["nodes"] for one in rows] == [1, 10, most]
        assert all(one["low_s"] <= one["time_s"] <= one["high_s"] for one in rows)
        assert [one["accuracy"] is None for one in rows] == [True, True, False]
    assert {one["device"] for one in found} == {"cpu"}
    frozen = [one for one in found if one["way"] == "frozen_update"][-1]
    assert frozen["accuracy"] == pytest.approx(outcomes["inductive"]["accuracy"]["unseen"])


@pytest.mark.parametrize(
    ("available", "expected"),
    [(1, [1]), (7, [1, 7]), (10, [1, 10]), (3913, [1, 10, 100, 1000, 3913])],
)
def test_numbers_of_new_nodes(available, expected):
    assert numbers(available) == expected


def test_at_most_a_hundred_thousand_at_once():
    assert numbers(442_618) == [1, 10, 100, 1000, 10_000, 100_000]


def test_those_who_come_later_are_not_in_the_graph_yet(stores):
    store, seen = stores["inductive"], []
    for graph, nodes in arrivals(store):
        absent = np.setdiff1d(store.unseen, nodes)
        colptr, row = without(store.whole.colptr, store.whole.row, absent)
        assert np.array_equal(graph.colptr, colptr) and np.array_equal(graph.row, row)
        assert np.isin(seen, nodes).all()
        seen = nodes
    assert np.array_equal(seen, store.unseen)


def test_the_first_to_come_have_a_neighbor_in_the_graph(tmp_path):
    base = sparse_store(tmp_path / "sparse")
    store = derive_unseen(tmp_path / "unseen", base, SPECS["inductive"])
    whole, alone = store.whole, []
    for _, nodes in arrivals(store):
        neighbors = [whole.row[whole.colptr[v] : whole.colptr[v + 1]] for v in nodes]
        alone.append(sum(np.isin(of_one, store.unseen).all() for of_one in neighbors))
    assert alone[:2] == [0, 0] and alone[-1] > 0


def test_one_rank_alone_and_keys_of_its_own():
    def row(**values):
        return changed("experiments.scaling", {"axis": "method", "list": [values]})

    with pytest.raises(UserError, match="ranks means nothing to method node2vec"):
        study_of(row(method="node2vec", ranks=2))
    said = r"context is null: write a number that is at most walk_length \(10\)"
    with pytest.raises(UserError, match=said):
        study_of(row(method="node2vec", walk_length=10))
    with pytest.raises(UserError, match="walks_per_node is 3: write null, or leave it out"):
        study_of(row(walks_per_node=3))
    study = study_of(row(method="node2vec", walks_per_node=3))
    (trial,) = [r.trial for r in study.requests.values() if r.trial.method == "node2vec"]
    assert trial.options["walks_per_node"] == 3 and "beside_features" not in trial.options
    assert GOOD["defaults"]["epochs"] == trial.epochs
