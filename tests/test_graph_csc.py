"""Edges to compressed columns, against sets of pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagebench.graph import csc


@st.composite
def edge_lists(draw):
    num_nodes = draw(st.integers(1, 30))
    node = st.integers(0, num_nodes - 1)
    pairs = draw(st.lists(st.tuples(node, node), max_size=80))
    dtype = draw(st.sampled_from([np.int64, np.int32, np.uint8]))
    return num_nodes, np.array(pairs, dtype).reshape(-1, 2).T


@given(edge_lists(), st.booleans())
def test_columns_hold_each_other_node_once_in_ascending_order(edges, undirected):
    num_nodes, edge_index = edges
    before = edge_index.copy()
    colptr, row = csc.csc_from_edges(edge_index, num_nodes, undirected)
    pairs = {(int(u), int(v)) for u, v in edge_index.T if u != v}
    if undirected:
        pairs |= {(v, u) for u, v in pairs}
    assert colptr.dtype == np.int64 and row.dtype == np.int32
    assert colptr.shape == (num_nodes + 1,) and colptr[0] == 0 and colptr[-1] == len(row)
    for node in range(num_nodes):
        neighbors = row[colptr[node] : colptr[node + 1]].tolist()
        assert neighbors == sorted(u for u, v in pairs if v == node)
    np.testing.assert_array_equal(edge_index, before)


@given(edge_lists())
def test_the_order_of_the_edges_changes_nothing(edges):
    num_nodes, edge_index = edges
    shuffled = np.random.default_rng(0).permutation(edge_index, axis=1)
    for one, other in zip(
        csc.csc_from_edges(edge_index, num_nodes),
        csc.csc_from_edges(shuffled, num_nodes),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_edges_beyond_one_chunk(monkeypatch):
    monkeypatch.setattr(csc, "CHUNK_EDGES", 7)
    edge_index = np.random.default_rng(1).integers(0, 40, (2, 100))
    chunked = csc.csc_from_edges(edge_index, 40, undirected=True)
    monkeypatch.undo()
    whole = csc.csc_from_edges(edge_index, 40, undirected=True)
    for one, other in zip(chunked, whole, strict=True):
        np.testing.assert_array_equal(one, other)


def test_ids_near_the_limit_of_a_key():
    """Node ids of graphs as large as keys allow survive the way through one number."""
    num_nodes = csc.LARGEST_NUM_NODES
    source = np.array([num_nodes - 1, 0, num_nodes - 2])
    target = np.array([num_nodes - 2, num_nodes - 1, num_nodes - 1])
    keys = csc.sorted_unique(csc.edge_keys(source, target, num_nodes))
    np.testing.assert_array_equal(csc.row_of(keys, num_nodes), [num_nodes - 1, 0, num_nodes - 2])
    with pytest.raises(ValueError, match="64 bits"):
        csc.edge_keys(source, target, num_nodes + 1)
