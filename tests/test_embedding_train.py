"""node2vec over a whole graph: passes, interruptions, nodes outside of the training."""

import numpy as np
import pytest
import torch
from graphs import star_csc
from sagebench.embedding.new_nodes import mean_of_neighbors, train_new_nodes
from sagebench.embedding.skipgram_torch import TensorSkipGram
from sagebench.embedding.train import Settings, Training, warm_up
from sagebench.graph.csc import csc_from_edges

SMALL = Settings(
    dimension=16, walk_length=6, context=4, walks_per_node=2, batch_size=16, passes=3, p=0.5, q=2
)
NODES, LONE = 60, 3


def undirected(edges, nodes=NODES):
    return csc_from_edges(np.asarray(edges, np.int64).reshape(2, -1), nodes, True)


@pytest.fixture
def graph():
    """Every node has a neighbor, but the last LONE."""
    rng = np.random.default_rng(0)
    others = np.arange(NODES - LONE)
    return undirected([np.tile(others, 2), np.r_[rng.permutation(others), np.roll(others, 1)]])


class Interrupted(Exception):
    pass


def made(graph, kind="loops", threads=1, **changes):
    training = Training(*graph, Settings(**{**vars(SMALL), **changes}), 5, threads)
    if kind == "tensors":
        vectors = torch.from_numpy(training.model.vectors)
        training.model = TensorSkipGram(vectors, SMALL.context, SMALL.learning_rate)
    return training


def vectors_of(training):
    return np.asarray(training.model.vectors).copy()


@pytest.mark.parametrize("edges", [[], [(1, 0)], [(1, 0), (2, 1), (0, 1)]])
def test_any_graph_warms_up(edges):
    """One without edges, and one whose only walk ends after a step."""
    colptr, row = csc_from_edges(np.array(edges, np.int64).reshape(-1, 2).T, 3)
    warm_up(colptr, row, SMALL, 1, "cpu")


@pytest.mark.parametrize("kind", ["loops", "tensors"])
@pytest.mark.parametrize("batches", [0, 1, 4, 5, 11])
def test_interrupted_anywhere_it_goes_on_to_the_same_vectors(graph, kind, batches, tmp_path):
    whole = made(graph, kind)
    whole.run()
    assert whole.done and whole.batches_per_pass == 4 and whole.model.steps == 12

    seen = []

    def between(loss):
        if len(seen) == batches:
            raise Interrupted
        seen.append(loss)

    first = made(graph, kind)
    with pytest.raises(Interrupted):
        first.run(between)
    torch.save(first.state(), tmp_path / "state.pt")
    second = made(graph, kind, threads=2)
    second.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    second.run()
    assert second.done and second.model.steps == 12
    assert np.array_equal(vectors_of(second), vectors_of(whole))


def test_between_batches_it_is_told_the_loss(graph):
    losses = []
    made(graph, learning_rate=0.1, passes=8).run(losses.append)
    assert losses[0] is None and len(losses) == 32
    assert losses[1] == pytest.approx(2 * np.log(2), rel=0.02)  # vectors near 0
    assert np.mean(losses[-4:]) < losses[1] - 0.1


def test_lone_nodes_are_touched_by_nothing(graph):
    training = made(graph)
    before = vectors_of(training)
    training.run()
    after = vectors_of(training)
    assert np.array_equal(after[-LONE:], before[-LONE:])
    assert (after[:-LONE] != before[:-LONE]).any(1).all()
    assert not training.model.mean[-LONE:].any()


def test_seeds_differ_and_an_int64_graph_is_the_same(graph):
    colptr, row = graph
    found = []
    for rows, seed in ((row, 5), (row.astype(np.int64), 5), (row, 6)):
        training = Training(colptr, rows, SMALL, seed)
        training.run()
        found.append(vectors_of(training))
    assert np.array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


def test_two_components_come_apart():
    a, b = (np.stack(np.triu_indices(10, 1)) + start for start in (0, 10))
    training = Training(
        *undirected(np.concatenate([a, b], 1), 20),
        Settings(**{**vars(SMALL), "passes": 60, "learning_rate": 0.05}), 0,
    )  # fmt: skip
    training.run()
    vectors = vectors_of(training)
    scores = vectors @ vectors.T
    inside = np.r_[scores[:10, :10][~np.eye(10, dtype=bool)], scores[10:, 10:].ravel()]
    assert inside.mean() > scores[:10, 10:].mean() + 1


@pytest.mark.parametrize("edges", [[], [[0], [1]]])
def test_a_graph_of_almost_nothing(edges):
    training = Training(*undirected(edges, 3), SMALL, 0)
    before = vectors_of(training)
    training.run()
    assert training.done and training.model.steps == (3 if edges else 0)
    assert np.array_equal(vectors_of(training)[2], before[2])


def test_a_context_that_no_walk_holds_is_refused():
    with pytest.raises(ValueError, match="context is 42; write 2 to 41"):
        Settings(context=42)


def test_new_nodes_are_trained_and_nothing_else_moves(graph):
    rng = np.random.default_rng(1)
    trained = rng.standard_normal((NODES, 16)).astype(np.float32)
    new = np.array([40, 3, 17, NODES - 1])
    old = np.setdiff1d(np.arange(NODES), new)
    found = []
    for threads in (1, 2):
        vectors = trained.copy()
        train_new_nodes(vectors, new, *graph, seed=2, threads=threads)
        assert np.array_equal(vectors[old], trained[old])
        assert np.abs(vectors[new[:3]]).max() > 0.05 > np.abs(vectors[NODES - 1]).max() > 0
        found.append(vectors)
    assert np.array_equal(*found)


def test_a_new_node_comes_near_its_neighbors():
    """Two groups far apart: a new node joined to one of them turns to it."""
    group = np.arange(10)
    edges = np.concatenate(
        [
            [group, np.roll(group, 1)],
            [group + 10, np.roll(group, 1) + 10],
            [[20] * 4, [0, 3, 5, 8]],
        ],
        1,
    )
    vectors = np.zeros((21, 8), np.float32)
    vectors[:10, 0], vectors[10:20, 0] = 1, -1
    train_new_nodes(vectors, np.array([20]), *undirected(edges, 21), seed=0)
    assert vectors[20, 0] > 3 * np.abs(vectors[20, 1:]).max()


def means_by_rounds(vectors, new, colptr, row, otherwise):
    """The rule, node by node."""
    vectors = vectors.astype(np.float64)
    known = set(range(len(vectors))) - set(new.tolist())
    waiting = set(new.tolist())
    while True:
        near = {v: [u for u in row[colptr[v] : colptr[v + 1]] if u in known] for v in waiting}
        near = {v: found for v, found in near.items() if found}
        if not near:
            break
        for v, found in near.items():
            vectors[v] = vectors[found].mean(0)
        known |= set(near)
        waiting -= set(near)
    for v in waiting:
        vectors[v] = otherwise
    return vectors


@pytest.mark.parametrize("share", [0.1, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("edges", [40, 80])
def test_means_of_neighbors_are_those_of_a_loop(share, edges):
    rng = np.random.default_rng(edges)
    graph = undirected(rng.integers(0, NODES, (2, edges)))
    vectors = rng.standard_normal((NODES, 8)).astype(np.float32)
    new = rng.permutation(NODES)[: round(share * NODES)]
    otherwise = rng.standard_normal(8).astype(np.float32)
    expected = means_by_rounds(vectors, new, *graph, otherwise)
    for threads in (1, 2):
        found = vectors.copy()
        mean_of_neighbors(found, new, *graph, otherwise, threads=threads)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        old = np.setdiff1d(np.arange(NODES), new)
        assert np.array_equal(found[old], vectors[old])


def test_rounds_go_outward_and_the_unreached_get_another_vector():
    colptr, row = undirected([[0, 1, 2, 4], [1, 2, 3, 5]], 6)  # a path, and an edge apart
    vectors = np.zeros((6, 1), np.float32)
    vectors[0] = 8
    other = np.float32([8])
    mean_of_neighbors(vectors, np.array([1, 2, 3]), colptr, row, other)
    assert vectors[:, 0].tolist() == [8, 8, 8, 8, 0, 0]
    mean_of_neighbors(vectors, np.array([3, 4, 5]), colptr, row, other)
    assert vectors[:, 0].tolist() == [8, 8, 8, 8, 8, 8]
    vectors[1:3, 0] = 2, 5
    colptr, row = star_csc(2)
    mean_of_neighbors(vectors[:3], np.array([0]), colptr, row, other)
    assert vectors[0, 0] == 3.5
