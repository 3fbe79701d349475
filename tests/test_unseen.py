"""Unseen nodes: how they are drawn, the store without them, and that training meets none."""

from __future__ import annotations

import json
import os
import pickle
import time
from pathlib import Path

import build_graph
import numpy as np
import pytest
import torch
from configurations import GOOD, changed, study_of
from hypothesis import given
from hypothesis import strategies as st
from ranks import run_ranks
from sagebench.engines.aggregated_features import build_table, open_table
from sagebench.engines.base import make_engine
from sagebench.errors import UserError
from sagebench.graph.csc import csc_from_edges
from sagebench.graph.store import GraphStore, derive_store
from sagebench.graph.unseen import derive_unseen, draw_unseen, without
from sagebench.grid.trial import base_dataset, store_name
from sagebench.sampling.order import SeedOrder
from trial_runs import Run
from trials import DATASET, make_trial, sparse_store, tiny_store

CPU = torch.device("cpu")
SPECS = {
    setting: {**DATASET, "setting": setting, "unseen": 0.3, "split_seed": 4}
    for setting in ("transductive", "inductive")
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("stores") / "tiny")


@pytest.fixture(scope="module")
def stores(base):
    return {
        setting: derive_unseen(base.path.parent / setting, base, spec)
        for setting, spec in SPECS.items()
    }


def edges(colptr, row):
    column = np.repeat(np.arange(len(colptr) - 1), np.diff(colptr))
    return list(zip(row.tolist(), column.tolist(), strict=True))


@given(
    ends=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=40),
    unseen=st.sets(st.integers(0, 8)),
)
def test_no_edge_of_the_unseen_is_left(ends, unseen):
    graph = csc_from_edges(np.array(ends, np.int64).reshape(-1, 2).T, 9)
    found = without(*graph, np.array(sorted(unseen), np.int64))
    assert edges(*found) == [edge for edge in edges(*graph) if not unseen & {*edge}]


@given(share=st.floats(0.001, 1), seed=st.integers(0, 2**63 - 1))
def test_a_share_of_the_test_nodes_is_drawn(base, share, seed):
    unseen = draw_unseen(base, share, "node", seed)
    assert len(unseen) == max(1, round(share * len(base.test)))
    assert (np.diff(unseen) > 0).all()
    assert np.isin(unseen, base.test).all()
    assert np.array_equal(unseen, draw_unseen(base, share, "node", seed))


def test_another_seed_draws_others(base):
    one, other = (draw_unseen(base, 0.3, "node", seed) for seed in (0, 1))
    assert not np.array_equal(one, other)


def grouped(base, group, name):
    return derive_store(
        base.path.parent / name, base, {"group": group}, source=DATASET, provenance={}
    )


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 1.0])
def test_groups_are_drawn_whole(base, share):
    group = np.arange(base.num_nodes) // 7  # at the ends of the test split two are cut
    unseen = draw_unseen(grouped(base, group, "by-group"), share, "group", 0)
    assert np.isin(unseen, base.test).all()
    for one in np.unique(group[unseen]):
        assert np.isin(np.flatnonzero(group == one), unseen).all()
    assert len(unseen) <= max(7, share * len(base.test))
    assert len(unseen) > min(share * len(base.test), 300 - 12) - 7


def test_no_groups_are_one_sentence(base):
    with pytest.raises(UserError, match="has no groups of nodes: write unseen_by: node"):
        draw_unseen(base, 0.5, "group", 0)
    one = grouped(base, np.zeros(base.num_nodes, np.int64), "one-group")
    with pytest.raises(UserError, match="no group of nodes lies in the test split alone"):
        draw_unseen(one, 0.5, "group", 0)


def test_both_settings_differ_in_the_training_graph_alone(base, stores):
    transductive, inductive = stores["transductive"], stores["inductive"]
    assert np.array_equal(transductive.unseen, inductive.unseen)
    for name in ("features", "labels", "train", "valid", "test"):
        for store in stores.values():
            assert np.array_equal(getattr(store, name), getattr(base, name))
    for store in (transductive, transductive.whole, inductive.whole):
        assert np.array_equal(store.colptr, base.colptr)
        assert np.array_equal(store.row, base.row)
    expected = [e for e in edges(base.colptr, base.row) if not {*inductive.unseen.tolist()} & {*e}]
    assert edges(inductive.colptr, inductive.row) == expected
    assert inductive.num_edges == len(expected) < inductive.whole.num_edges
    assert len({base.checksum, transductive.checksum, inductive.checksum}) == 3


def test_a_derived_store_opens_and_verifies(stores):
    for store in stores.values():
        again = GraphStore.open(store.path, verify=True)
        assert again.manifest["provenance"]["derived_from"]
        assert again.manifest["source"] == SPECS[store.manifest["source"]["setting"]]


def test_another_process_has_the_same_graph(stores):
    for store in (stores["inductive"], stores["inductive"].whole, stores["transductive"].whole):
        again = pickle.loads(pickle.dumps(store))
        assert np.array_equal(again.row, store.row)
        assert again.whole_row is None or store.whole_row is not None


@pytest.mark.parametrize("sampler", ["sagebench", "labor"])
@pytest.mark.parametrize("fanout", [[5, 4, 3], [5, 4, -1], [-1, -1, -1]])
@pytest.mark.parametrize("engine", ["blocks", "reference"])
def test_no_training_sample_has_an_unseen_node(stores, engine, fanout, sampler):
    store = stores["inductive"]
    if engine == "blocks" and fanout[-1] == -1:
        list(build_table(store, "mean"))
    trial = make_trial(
        engine=engine, fanout=fanout, sampler=sampler, batch_size=64, sampling_workers=0
    )
    made = make_engine(trial, store, CPU)
    order = SeedOrder(store.train, trial.batch_size, trial.accumulation, 1, trial.seed)
    micro_batches = [one for epoch in (1, 2) for one in order.micro_batches(epoch, 0)]
    nodes = np.unique(np.concatenate([nodes_of(made.sample(one)[-1]) for one in micro_batches]))
    assert not np.isin(nodes, store.unseen).any()
    assert len(nodes) > 2 * len(store.train)


def nodes_of(sampled):
    """Ids of the nodes that were sampled, by the blocks of ours or by PyG's output."""
    if hasattr(sampled, "neighbors"):
        return np.concatenate([sampled.node_ids.numpy(), sampled.neighbors.numpy()])
    return np.empty(0) if sampled is None else sampled.node.numpy()


def test_the_table_that_training_reads_is_of_its_graph(stores):
    store = stores["inductive"]
    changed_features = np.array(store.features)
    changed_features[store.unseen] = 1e6
    list(build_table(store, "mean"))
    assert np.abs(open_table(store, "mean")).max() < 1e3
    other = derive_store(
        store.path.parent / "changed",
        store,
        {"features": changed_features},
        source={},
        provenance={},
    )
    list(build_table(other, "mean"))
    assert np.array_equal(open_table(other, "mean"), open_table(store, "mean"))


WALKS = {
    "dimension": 8, "walk_length": 6, "context": 3, "walks_per_node": 2, "start_nodes": 300,
    "walk_learning_rate": 0.01, "negatives": 1, "passes": 1, "p": 1.0, "q": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """A store with many leaves, whose only neighbor is unseen."""
    folder = tmp_path_factory.mktemp("sparse")
    base = sparse_store(folder / "base")
    store = derive_unseen(folder / "unseen", base, SPECS["inductive"])
    alone = np.diff(store.colptr) == 0
    assert alone[store.train].any() and alone[store.valid].any()
    return store


@pytest.mark.parametrize(
    "values",
    [
        {"fanout": [4, 3, -1]},
        {"engine": "trimmed"},
        {"options": {"correct_and_smooth": True}},
        {"method": "whole_graph", "model": "gcn"},
        {"method": "label_propagation", "options": {"alpha": 0.9}},
        {"method": "node2vec", "options": WALKS},
    ],
    ids=lambda values: values.get("method", str(values)),
)
def test_what_the_unseen_are_changes_nothing_of_training(tmp_path, sparse, values):
    """Same losses, validation and weights, whatever features and neighbors the unseen nodes have;
    they are tested with them."""
    store = sparse
    strange = np.array(store.features)
    strange[store.unseen] += 1000
    others = without(store.whole_colptr, store.whole_row, store.unseen[::2])
    changes = {
        "as-it-is": {},
        "strange": {"features": strange, "whole_colptr": others[0], "whole_row": others[1]},
    }
    spec = SPECS["inductive"]
    trial = make_trial(dataset=spec, evaluate_every_epochs=1, epochs=3, **values)
    outcomes, weights = [], []
    for name, changed_arrays in changes.items():
        made = derive_store(tmp_path / name, store, changed_arrays, source=spec, provenance={})
        if trial.fanout[-1] == -1:
            list(build_table(made, "mean"))
        run = Run(tmp_path / f"run-{name}", trial, made.path)
        finished = run.finish()
        assert finished.returncode == 0, finished.stderr
        outcomes.append(run.outcome)
        weights.append([torch.load(path, weights_only=True) for path in run.home.rglob("best.pt")])
    one, other = outcomes
    assert repr(weights[0]) == repr(weights[1])
    for epoch, same in zip(one["epochs"], other["epochs"], strict=True):
        for key in ("loss", "train_accuracy", "validation_accuracy", "nodes", "edges"):
            assert epoch[key] == same[key]
    assert one["accuracy"]["best_validation"] == other["accuracy"]["best_validation"]
    assert one["accuracy"]["unseen"] != other["accuracy"]["unseen"]
    assert one["store"]["unseen_nodes"] == len(store.unseen)


def test_ranks_embed_new_nodes_as_often_as_each_other(tmp_path, stores, monkeypatch):
    """Each by its own clock, one would leave the other in a collective."""
    trial = make_trial(dataset=SPECS["inductive"], ranks=2, epochs=1, phase_window_steps=0)
    assert run_ranks(2, skewed, trial, str(stores["inductive"].path), str(tmp_path)) == [0, 0]
    measured = json.loads((tmp_path / "measured.json").read_text())
    assert [one["nodes"] for one in measured["new_nodes"]] == [1, 10, 90]


def skewed(place, trial, store, home):
    """A rank of the trial, whose clock runs the faster the higher its number."""
    from sagebench.methods import new_nodes
    from sagebench.training import rank

    class Clock:
        perf_counter = staticmethod(lambda: time.perf_counter() * (1 + 300 * place.rank))

    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    numbers = (place.rank, place.world_size, place.rank, place.world_size)
    os.environ |= dict(zip(names, map(str, numbers), strict=True))
    os.environ["SAGEBENCH_RENDEZVOUS"] = place.rendezvous
    new_nodes.time = Clock
    return rank.run_rank(trial, Path(store), Path(home))


def test_the_unseen_are_tested_in_the_whole_graph(tmp_path, stores):
    """With weights that no training changed, both settings test alike."""
    found = []
    for setting, store in stores.items():
        trial = make_trial(
            dataset=SPECS[setting], learning_rate=1e-30, epochs=1, phase_window_steps=0
        )
        run = Run(tmp_path / setting, trial, store.path)
        assert run.finish().returncode == 0
        accuracy = run.outcome["accuracy"]
        found.append([accuracy[key] for key in ("test_full", "test_sampled", "unseen")])
    assert found[0] == found[1]


def test_an_end_while_new_nodes_are_timed_leaves_the_accuracy(tmp_path, stores):
    trial = make_trial(dataset=SPECS["inductive"], epochs=1)
    assert run_ranks(1, starved, trial, str(stores["inductive"].path), str(tmp_path)) != [0]
    measured = json.loads((tmp_path / "measured.json").read_text())
    assert measured["accuracy"]["unseen"] is not None and not measured["complete"]


def starved(place, trial, store, home):
    """A rank whose memory ends with the first new node."""
    from sagebench.methods import new_nodes
    from sagebench.training import rank

    def embed(*arguments):
        raise MemoryError

    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    new_nodes._timed = embed
    return rank.run_rank(trial, Path(store), Path(home))


def test_a_store_by_group_is_made_of_one_beside_it(tmp_path):
    nodes, rng = 60, np.random.default_rng(0)
    np.savez(
        tmp_path / "graph.npz",
        edge_index=rng.integers(0, nodes, (2, 300)),
        x=rng.random((nodes, 3), np.float32),
        y=np.arange(nodes) % 3,
        group=np.arange(nodes) // 5,
        **dict(zip(("train", "valid", "test"), np.split(np.arange(nodes), [10, 20]), strict=True)),
    )
    spec = {"name": "mine", "source": "arrays", "path": str(tmp_path / "graph.npz")}
    asked = {"setting": "inductive", "unseen": 0.4, "unseen_by": "group"}
    store = build_graph.build({**spec, **asked}, tmp_path / "mine", tmp_path)
    groups, sizes = np.unique(np.array(store.group)[store.unseen], return_counts=True)
    assert len(groups) == 3 and set(sizes) == {5}  # of 40 test nodes 16 at most
    base = GraphStore.open(tmp_path / store_name(spec))
    assert np.array_equal(store.whole.row, base.row) and len(store.row) < len(base.row)


def test_what_is_wrong_with_its_base_names_the_data_set_once(tmp_path):
    spec = {"name": "mine", "source": "arrays", "path": str(tmp_path / "none.npz")}
    with pytest.raises(UserError) as error:
        build_graph.build({**spec, "setting": "inductive", "unseen": 0.4}, tmp_path / "a", tmp_path)
    assert str(error.value).count("data set mine") == 1


UNSEEN = {**GOOD["dataset"], "setting": "inductive", "unseen": 0.2}


def test_each_seed_draws_its_own_unless_one_is_given():
    for dataset, seeds in ((UNSEEN, [0, 1]), ({**UNSEEN, "split_seed": 7}, [7, 7])):
        study = study_of(changed("dataset", dataset))
        (experiment,) = [one for one in study.experiments if one.name == "scaling"]
        drawn = [study.requests[one].trial.dataset["split_seed"] for one in experiment.trials]
        assert drawn == seeds * 2
        for request in study.requests.values():
            assert request.store == store_name(request.trial.dataset) in study.stores
        bases = study.all_stores.keys() - study.stores.keys()
        assert bases == {store_name(GOOD["dataset"])}


def test_a_drawn_split_is_part_of_what_others_are_made_of():
    glnn = {"name": "pubmed", "source": "pubmed", "split": "glnn", "split_seed": 3}
    unseen = {"setting": "inductive", "unseen": 0.2, "unseen_by": "node"}
    assert base_dataset({**glnn, **unseen}) == glnn
    assert base_dataset({**glnn, "split": "large", **unseen}) == {
        "name": "pubmed",
        "source": "pubmed",
        "split": "large",
    }
    assert base_dataset(glnn) is None


def test_groups_of_a_source_without_them_are_refused_before_anything_runs():
    with pytest.raises(UserError, match="source pubmed has no groups of nodes: write unseen_by"):
        study_of(changed("dataset", {**UNSEEN, "unseen_by": "group"}))


def test_by_node_is_what_it_is_without_a_word():
    grouped = {"name": "mine", "source": "arrays", "path": "mine.npz"}
    given = {**grouped, "setting": "inductive", "unseen": 0.2}
    ids = [
        set(study_of(changed("dataset", {**given, **more})).requests)
        for more in ({}, {"unseen_by": "node"}, {"unseen_by": "group"})
    ]
    assert ids[0] == ids[1] and not ids[0] & ids[2]


def test_the_settings_stand_in_the_ids():
    for setting in ("transductive", "inductive"):
        study = study_of(changed("dataset", {**UNSEEN, "setting": setting}))
        assert all(one.startswith(f"pubmed-{setting}-") for one in study.requests)
