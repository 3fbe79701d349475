"""LABOR-0 against a brute force in plain Python, against statistics, and on a device."""

import numpy as np
import pytest
import torch
from graphs import random_csc, star_csc
from hypothesis import given
from hypothesis import strategies as st
from sagebench.sampling.device import labor as device
from sagebench.sampling.labor import Sampler
from sagebench.sampling.order import sample_key
from sagebench.sampling.random import LABOR_STREAM, MASK64, NODE_STRIDE, fold, mix64
from scipy import stats

ARRAYS = ("node_ids", "rowptr", "neighbors", "cols")


def number(node, key):
    """r(node) of the micro-batch, times 2**32."""
    return mix64((fold(LABOR_STREAM, key) + node * NODE_STRIDE) & MASK64) >> 32


def brute_force(colptr, row, seeds, fanout, key):
    """The definition of a sample, an edge at a time: (node ids, neighbors of each row)."""
    node_ids, rows, frontier = list(seeds), [], list(seeds)
    for k in fanout:
        found = set()
        for node in frontier:
            neighbors = row[colptr[node] : colptr[node + 1]].tolist()
            degree = len(neighbors)
            rows.append([u for u in neighbors if k < 0 or number(u, key) / 2**32 < k / degree])
            found |= set(rows[-1])
        frontier = sorted(found - set(node_ids))
        node_ids += frontier
    return node_ids, rows


fanouts = st.lists(st.integers(-1, 6), min_size=1, max_size=5)


@given(st.integers(2, 60), st.integers(0, 400), fanouts, st.integers(0, 2**64 - 1), st.data())
def test_sample_is_the_brute_force_sample(nodes, edges, fanout, key, data):
    colptr, row = random_csc(nodes, edges, seed=edges)
    seeds = np.array(data.draw(st.lists(st.integers(0, nodes - 1), unique=True)), dtype=np.int64)
    blocks = Sampler(colptr, row).sample(seeds, fanout, key)
    node_ids, rows = brute_force(colptr, row, seeds.tolist(), fanout, key)
    assert blocks.node_ids.tolist() == node_ids
    assert blocks.neighbors.tolist() == [node for neighbors in rows for node in neighbors]
    assert blocks.rowptr.diff().tolist() == [len(neighbors) for neighbors in rows]


@given(
    nodes=st.integers(2, 60),
    edges=st.integers(0, 400),
    fanout=fanouts,
    key=st.integers(0, 2**64 - 1),
    relabel_last=st.booleans(),
    edges_a_step=st.sampled_from([1, 20, 1 << 20]),
    data=st.data(),
)
def test_a_device_samples_the_same(nodes, edges, fanout, key, relabel_last, edges_a_step, data):
    colptr, row = random_csc(nodes, edges, seed=edges)
    seeds = np.array(data.draw(st.lists(st.integers(0, nodes - 1), unique=True)), dtype=np.int64)
    on_device = device.Sampler(torch.from_numpy(colptr), torch.from_numpy(row))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(device, "EDGES_A_STEP", edges_a_step)
        found = on_device.sample(seeds, fanout, key, relabel_last=relabel_last)
    expected = Sampler(colptr, row).sample(seeds, fanout, key, relabel_last=relabel_last)
    for name in ARRAYS:
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype, name
        assert torch.equal(one, other), name
    assert found[4:] == expected[4:]


def test_threads_change_nothing():
    colptr, row = random_csc(30_000, 400_000)
    seeds = np.random.default_rng(1).choice(30_000, 4096, replace=False)
    one, many = (Sampler(colptr, row, count).sample(seeds, [7, 5, -1], 9) for count in (1, 3))
    for name in ARRAYS:
        assert torch.equal(getattr(one, name), getattr(many, name)), name


@pytest.mark.parametrize("k", [400, 401, -1])
def test_as_many_as_there_are(k):
    colptr, row = star_csc(400)
    assert Sampler(colptr, row).sample(np.array([0]), [k], 5).edges_per_hop == (400,)


@pytest.mark.parametrize(("degree", "k"), [(16, 15), (3, 1), (50, 10), (400, 3)])
def test_every_neighbor_is_kept_with_probability_k_over_d(degree, k):
    colptr, row = star_csc(degree)
    sampler = Sampler(colptr, row)
    draws, counts = 4000, np.zeros(degree)
    for index in range(draws):
        sample = sampler.sample(np.zeros(1, int), [k], sample_key(7, 1, index)).neighbors
        counts[sample.numpy() - 1] += 1
    p = k / degree
    statistic = ((counts - draws * p) ** 2).sum() / (draws * p * (1 - p))
    assert stats.chi2.sf(statistic, degree) > 1e-4


def test_rows_of_equal_degree_choose_the_same_neighbors_in_every_hop():
    """Two hubs over the same leaves: what one keeps the other keeps, whichever hop they are in."""
    leaves = 40
    # Leaves 2.. are the neighbors of nodes 0 and 1; node 1 is a neighbor of the leaves.
    colptr = np.array([0, leaves, 2 * leaves, *range(2 * leaves + 1, 3 * leaves + 1)])
    row = np.array([*range(2, leaves + 2)] * 2 + [1] * leaves, np.int32)
    blocks = Sampler(colptr, row).sample(np.array([0]), [8, 1, 8], 3)
    first, _, third = blocks.neighbors.split(list(blocks.edges_per_hop))
    assert len(first)
    assert torch.equal(first, third)
