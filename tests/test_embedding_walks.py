"""Random walks: their law, and what they do not depend on."""

import numpy as np
import pytest
from graphs import star_csc
from hypothesis import given, settings
from hypothesis import strategies as st
from sagebench.embedding.walks import Walker, reachable
from sagebench.graph.csc import csc_from_edges
from scipy.stats import chi2

KITE = [[0, 0, 0, 1, 1, 2, 3, 4], [1, 2, 3, 2, 3, 3, 4, 5]]
"""triangles, a tail (3, 4, 5): steps back, near and away from every node"""


def undirected(edges, nodes, dtype=np.int32):
    colptr, row = csc_from_edges(np.asarray(edges, np.int64).reshape(2, -1), nodes, True)
    return colptr, row.astype(dtype)


def transition(colptr, row, p, q):
    """Probabilities [t, v, x] of a step from v to x, after one from t to v, by the paper's
    definition."""
    nodes = len(colptr) - 1
    joined = np.zeros((nodes, nodes), bool)
    for v in range(nodes):
        joined[v, row[colptr[v] : colptr[v + 1]]] = True
    weights = np.zeros((nodes, nodes, nodes))
    for t, v, x in np.ndindex(weights.shape):
        if joined[t, v] and joined[v, x]:
            weights[t, v, x] = 1 / p if x == t else 1 if joined[t, x] else 1 / q
    return weights / np.maximum(weights.sum(2, keepdims=True), 1e-300)


def is_drawn_from(counts, probabilities):
    """Chi-square over the rows; a false alarm in a million."""
    rows = counts.sum(-1, keepdims=True)
    assert not counts[probabilities == 0].any(), "impossible steps"
    expected = rows * probabilities
    possible = expected > 0
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - (rows > 0).sum()
    return statistic < chi2.isf(1e-6, freedom)


@given(ends=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=12))
def test_walks_come_to_what_is_reachable(ends):
    """In a directed graph, to nodes too that no walk starts at."""
    colptr, row = csc_from_edges(np.array(ends, np.int64).reshape(-1, 2).T, 8)
    walker = Walker(colptr, row)
    walks = walker.walks(walker.connected, range(60), 1, 0, 1)
    visited = np.isin(np.arange(8), walks)
    assert visited.tolist() == reachable(colptr, row).tolist()


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize(("p", "q"), [(1, 1), (0.25, 4), (4, 0.25), (0.5, 0.5), (3, 2)])
def test_steps_have_the_probabilities_of_the_paper(p, q, dtype):
    colptr, row = undirected(KITE, 6, dtype)
    walks = Walker(colptr, row, p, q).walks(np.arange(6), range(3000), 12, 0, 1)
    law = transition(colptr, row, p, q)
    counts = np.zeros(law.shape)
    np.add.at(counts, (walks[:, :-2], walks[:, 1:-1], walks[:, 2:]), 1)
    assert is_drawn_from(counts, law)
    if (p, q) != (1, 1):
        assert not is_drawn_from(counts, transition(colptr, row, 1, 1)), "the test has no power"
    first = np.zeros((6, 6))
    np.add.at(first, (walks[:, 0], walks[:, 1]), 1)
    degree = np.diff(colptr)
    uniform = (law.sum(0) > 0) / degree[:, None]
    assert is_drawn_from(first, uniform)


def test_a_directed_graph_asks_for_the_edge_from_where_it_came():
    edges = [[1, 2, 2, 0, 0], [0, 1, 0, 1, 2]]  # 0 <-> 1, 0 <-> 2, a walk from 1 reaches 2
    colptr, row = csc_from_edges(np.array(edges), 3)
    p, q = 0.5, 4
    walks = Walker(colptr, row, p, q).walks(np.arange(3), range(4000), 8, 0, 1)
    counts = np.zeros((3, 3, 3))
    np.add.at(counts, (walks[:, :-2], walks[:, 1:-1], walks[:, 2:]), 1)
    assert is_drawn_from(counts, transition(colptr, row, p, q))


graphs = st.integers(1, 12).flatmap(
    lambda nodes: st.tuples(
        st.just(nodes),
        st.lists(st.tuples(*[st.integers(0, nodes - 1)] * 2), max_size=30),
        st.booleans(),
    )
)


@settings(max_examples=40, deadline=None)
@given(graphs, st.sampled_from([0.25, 1, 4]), st.sampled_from([0.25, 1, 4]), st.integers(0, 99))
def test_walks_keep_to_edges_and_depend_on_neither_threads_nor_company(graph, p, q, seed):
    nodes, edges, both = graph
    colptr, row = csc_from_edges(np.array(edges, np.int64).reshape(-1, 2).T, nodes, both)
    starts = np.arange(nodes)
    walker = Walker(colptr, row, p, q)
    walks = walker.walks(starts, range(20), 7, seed, 1)
    for before, after in zip(walks[:, :-1].ravel(), walks[:, 1:].ravel(), strict=True):
        neighbors = row[colptr[before] : colptr[before + 1]] if before >= 0 else []
        assert after in neighbors if len(neighbors) else after == -1
    shared = Walker(colptr, row, p, q, threads=3).walks(starts[::-1], range(20), 7, seed, 1)
    assert np.array_equal(shared.reshape(nodes, 20, 8)[::-1], walks.reshape(nodes, 20, 8))
    later = walker.walks(starts[-1:], range(5, 9), 7, seed, 1)
    assert np.array_equal(later, walks.reshape(nodes, 20, 8)[-1, 5:9])


def test_seed_and_pass_make_other_walks():
    colptr, row = undirected(KITE, 6)
    walks = [
        Walker(colptr, row).walks(np.arange(6), range(9), 20, seed, number)
        for seed, number in ((0, 1), (0, 2), (1, 1))
    ]
    assert all((walks[i] != walks[j]).any() for i, j in ((0, 1), (0, 2), (1, 2)))


def test_walks_of_a_star_an_edge_and_a_lone_node():
    colptr, row = star_csc(3)  # 0 reaches 1, 2, 3; nothing leaves them
    walks = Walker(colptr, row).walks(np.arange(4), range(5), 3, 0, 1)
    assert set(walks[:5, 1]) <= {1, 2, 3} and (walks[:5, 2:] == -1).all()
    assert (walks[5:, 1:] == -1).all()
    colptr, row = undirected([[0], [1]], 3)
    walks = Walker(colptr, row, 4, 0.25).walks(np.arange(3), range(1), 4, 0, 1)
    assert walks.tolist() == [[0, 1, 0, 1, 0], [1, 0, 1, 0, 1], [2, -1, -1, -1, -1]]


def test_walks_stay_in_their_component():
    colptr, row = undirected([[0, 1, 3, 4], [1, 2, 4, 5]], 6)
    walks = Walker(colptr, row).walks(np.array([0, 5]), range(50), 10, 0, 1)
    assert set(walks[:50].ravel()) == {0, 1, 2} and set(walks[50:].ravel()) == {3, 4, 5}


def test_negatives_are_uniform_over_nodes_with_neighbors():
    colptr, row = undirected([[0, 1, 5], [1, 3, 7]], 9)
    walker = Walker(colptr, row)
    drawn = walker.negatives(np.arange(9), range(20), (2, 40), 0, 1)
    assert drawn.shape == (180, 2, 40)
    counts = np.bincount(drawn.ravel(), minlength=9).astype(float)
    expected = np.isin(np.arange(9), [0, 1, 3, 5, 7]) / 5
    assert is_drawn_from(counts[None], expected[None])
    again = Walker(colptr, row, threads=3).negatives(np.array([8, 4]), range(3, 20), (2, 40), 0, 1)
    assert np.array_equal(again[17:], drawn[4 * 20 + 3 : 5 * 20])
