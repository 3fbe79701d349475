"""The tensor sampler against the CPU sampler: the same arrays, to the bit."""

import numpy as np
import pytest
import torch
from graphs import random_csc, star_csc
from hypothesis import given
from hypothesis import strategies as st
from sagebench.sampling.device import uniform as device_uniform
from sagebench.sampling.device.uniform import Sampler as TensorSampler
from sagebench.sampling.random import mix64, mix64_tensor, signed
from sagebench.sampling.uniform import Sampler as CpuSampler

fanouts = st.lists(st.integers(-1, 12), min_size=1, max_size=5)


def make_samplers(colptr, row):
    return (
        CpuSampler(colptr, row),
        TensorSampler(torch.from_numpy(colptr), torch.from_numpy(row)),
    )


def assert_equal(found, expected):
    for name in ("node_ids", "rowptr", "neighbors", "cols"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype, name
        assert torch.equal(one, other), name
    assert found[4:] == expected[4:]


@given(
    nodes=st.integers(2, 60),
    edges=st.integers(0, 400),
    fanout=fanouts,
    key=st.integers(0, 2**64 - 1),
    relabel_last=st.booleans(),
    draws_a_step=st.sampled_from([1, 20, 1 << 20]),
    wide=st.booleans(),
    data=st.data(),
)
def test_samples_are_the_cpu_samplers(
    nodes, edges, fanout, key, relabel_last, draws_a_step, wide, data
):
    colptr, row = random_csc(nodes, edges, seed=edges)
    cpu, tensors = make_samplers(colptr, row.astype(np.int64) if wide else row)
    seeds = np.array(data.draw(st.lists(st.integers(0, nodes - 1), unique=True)), dtype=np.int64)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(device_uniform, "DRAWS_A_STEP", draws_a_step)
        found = tensors.sample(seeds, fanout, key, relabel_last=relabel_last)
    assert_equal(found, cpu.sample(seeds, fanout, key, relabel_last=relabel_last))


@pytest.mark.parametrize("relabel_last", [True, False])
@pytest.mark.parametrize("fanout", [(15, 10, 10, 10, 10), (50, 0, 0), (-1, 4), (3, -1)])
def test_samples_of_a_larger_graph_are_the_cpu_samplers(fanout, relabel_last):
    cpu, tensors = make_samplers(*random_csc(20_000, 500_000))
    for key in (1, 2**64 - 1):  # twice: the scratch is left clean
        seeds = np.random.default_rng(key).choice(20_000, 128, replace=False)
        assert_equal(
            tensors.sample(seeds, fanout, key, relabel_last=relabel_last),
            cpu.sample(seeds, fanout, key, relabel_last=relabel_last),
        )


@pytest.mark.parametrize("k", [399, 400, 401])
def test_as_many_as_there_are(k):
    cpu, tensors = make_samplers(*star_csc(400))
    assert_equal(tensors.sample(np.array([0]), [k], 5), cpu.sample(np.array([0]), [k], 5))


@given(st.integers(0, 2**64 - 1))
def test_hash_is_that_of_integers(z):
    hashed = mix64_tensor(torch.tensor([signed(z)]))
    assert hashed.item() % 2**64 == mix64(z)
