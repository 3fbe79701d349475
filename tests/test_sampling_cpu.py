"""The CPU sampler against a brute force in plain Python, and against statistics."""

import numpy as np
import pytest
import torch
from graphs import random_csc, star_csc
from hypothesis import given
from hypothesis import strategies as st
from sagebench.sampling.order import sample_key
from sagebench.sampling.random import GOLDEN, MASK64, NODE_STRIDE, mix64
from sagebench.sampling.uniform import Sampler as CpuSampler
from scipy import stats

ARRAYS = ("node_ids", "rowptr", "neighbors", "cols")


def brute_force(colptr, row, seeds, fanout, key):
    """The definition of a sample, a neighbor at a time: (node ids, neighbors of each row)."""
    node_ids, rows, frontier = list(seeds), [], list(seeds)
    for hop, k in enumerate(fanout):
        found = set()
        for node in frontier:
            neighbors = row[colptr[node] : colptr[node + 1]].tolist()
            degree = len(neighbors)
            if k >= 0 and degree > k:
                hop_key = mix64((key + (hop + 1) * GOLDEN) & MASK64)
                row_key = mix64((hop_key + node * NODE_STRIDE) & MASK64)
                chosen = set()
                for n in range(k):
                    j = degree - k + n
                    t = ((mix64((row_key + (n + 1) * GOLDEN) & MASK64) >> 32) * (j + 1)) >> 32
                    chosen.add(j if t in chosen else t)
                neighbors = [neighbors[position] for position in sorted(chosen)]
            rows.append(neighbors)
            found |= set(neighbors)
        frontier = sorted(found - set(node_ids))
        node_ids += frontier
    return node_ids, rows


fanouts = st.lists(st.integers(-1, 6), min_size=1, max_size=5).map(
    lambda hops: hops[: hops.index(0)] + [0] * (len(hops) - hops.index(0)) if 0 in hops else hops
)


@given(st.integers(2, 60), st.integers(0, 400), fanouts, st.integers(0, 2**64 - 1), st.data())
def test_sample_is_the_brute_force_sample(nodes, edges, fanout, key, data):
    colptr, row = random_csc(nodes, edges, seed=edges)
    seeds = np.array(data.draw(st.lists(st.integers(0, nodes - 1), unique=True)), dtype=np.int64)
    blocks = CpuSampler(colptr, row).sample(seeds, fanout, key)
    node_ids, rows = brute_force(colptr, row, seeds.tolist(), fanout, key)
    assert blocks.node_ids.tolist() == node_ids
    assert blocks.neighbors.tolist() == [node for neighbors in rows for node in neighbors]
    assert blocks.rowptr.diff().tolist() == [len(neighbors) for neighbors in rows]
    assert torch.equal(blocks.node_ids[blocks.cols.long()], blocks.neighbors.long())
    assert sum(blocks.nodes_per_hop) == len(node_ids)
    assert sum(blocks.edges_per_hop) == len(blocks.neighbors)
    assert len(blocks.rowptr) - 1 == sum(blocks.nodes_per_hop[:-1])


@pytest.mark.parametrize("relabel_last", [True, False])
@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_change_nothing(threads, relabel_last):
    colptr, row = random_csc(30_000, 400_000)
    seeds = np.random.default_rng(1).choice(30_000, 512, replace=False)
    one, many = (
        CpuSampler(colptr, row, count).sample(seeds, [7, 5, -1], 9, relabel_last=relabel_last)
        for count in (1, threads)
    )
    for name in ARRAYS:
        assert torch.equal(getattr(one, name), getattr(many, name)), name
    assert one[4:] == many[4:]


def test_sampler_can_be_used_again():
    colptr, row = random_csc(500, 5000)
    sampler = CpuSampler(colptr, row)
    seeds = np.arange(20)
    first = sampler.sample(seeds, [3, 3], 1)
    sampler.sample(np.arange(100, 150), [5, 5], 2)
    again = sampler.sample(seeds, [3, 3], 1)
    assert all(torch.equal(a, b) for a, b in zip(first[:4], again[:4], strict=True))


def test_without_last_hop_the_rest_is_the_same():
    colptr, row = random_csc(2000, 30_000)
    sampler, seeds = CpuSampler(colptr, row), np.arange(0, 100, 3)
    whole = sampler.sample(seeds, [4, 4, 4], 5)
    short = sampler.sample(seeds, [4, 4, 4], 5, relabel_last=False)
    known = sum(short.nodes_per_hop)
    assert short.nodes_per_hop == (*whole.nodes_per_hop[:-1], 0)
    assert torch.equal(short.node_ids, whole.node_ids[:known])
    assert torch.equal(short.rowptr, whole.rowptr)
    assert torch.equal(short.neighbors, whole.neighbors)
    assert torch.equal(short.cols, whole.cols[: len(short.cols)])


def test_each_key_samples_anew():
    colptr, row = star_csc(1000)
    sampler = CpuSampler(colptr, row)
    samples = {
        tuple(sampler.sample(np.zeros(1, int), [5], sample_key(*key)).neighbors.tolist())
        for key in [(0, 1, 1), (1, 1, 1), (0, 2, 1), (0, 1, 2)]
    }
    assert len(samples) == 4


@pytest.mark.parametrize(("degree", "k"), [(16, 15), (11, 10), (3, 2), (2, 1), (50, 10), (400, 3)])
def test_every_neighbor_is_as_likely(degree, k):
    """Inclusion counts of a uniform sample without replacement pass a chi-square test.

    The counts of a sample of k out of d are not independent: their covariance makes the usual
    statistic (d - 1) / (d - k) times too small, hence the factor.
    """
    colptr, row = star_csc(degree)
    sampler = CpuSampler(colptr, row)
    draws = 4000
    counts = np.zeros(degree)
    for index in range(draws):
        sample = sampler.sample(np.zeros(1, int), [k], sample_key(7, 1, index)).neighbors.numpy()
        assert len(set(sample)) == k
        counts[sample - 1] += 1
    expected = draws * k / degree
    statistic = ((counts - expected) ** 2 / expected).sum() * (degree - 1) / (degree - k)
    assert stats.chi2.sf(statistic, degree - 1) > 1e-4


def test_every_subset_is_as_likely():
    colptr, row = star_csc(5)
    sampler = CpuSampler(colptr, row)
    counts: dict[tuple, int] = {}
    for index in range(6000):
        sample = sampler.sample(np.zeros(1, int), [2], sample_key(3, 1, index)).neighbors
        counts[tuple(sample.tolist())] = counts.get(tuple(sample.tolist()), 0) + 1
    assert len(counts) == 10
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_no_seeds_give_an_empty_sample():
    colptr, row = random_csc(50, 200)
    blocks = CpuSampler(colptr, row).sample(np.empty(0, np.int64), [3, 2], 1)
    assert blocks.nodes_per_hop == (0, 0, 0)
    assert blocks.rowptr.tolist() == [0]
