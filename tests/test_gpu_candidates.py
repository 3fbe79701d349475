"""Candidate kernels against the plain path, in Triton's interpreter where there is no card.

Run them with TRITON_INTERPRET=1: Triton reads it when it is loaded.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed: its kernels are not tested")
if os.environ.get("TRITON_INTERPRET") != "1" and not torch.cuda.is_available():
    pytest.skip("needs a CUDA device or TRITON_INTERPRET=1", allow_module_level=True)
sys.path.insert(0, str(Path(__file__).parent / "gpu"))

import interpreter  # noqa: E402, F401  (mends Triton's interpreter under numpy 2.4)
from candidates import norm, sampler, segment, transpose  # noqa: E402
from candidates.step import KernelModel, Tuning  # noqa: E402
from sagebench.kernels import segment as plain_segment  # noqa: E402
from sagebench.kernels.fused import keep_mask, plain_norm_relu_dropout  # noqa: E402
from sagebench.models.base import Network  # noqa: E402
from sagebench.sampling.device.uniform import Sampler as TensorSampler  # noqa: E402
from sagebench.sampling.uniform import Sampler as CpuSampler  # noqa: E402

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
KEY = 0xFEDCBA9876543210


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def assert_near(got, expected, bound):
    error = (got.float() - expected.float()).norm() / expected.float().norm().clamp(min=1e-6)
    assert error < bound


def make_edges(seed, num_dst, num_src, max_degree=6, hub=0):
    """rowptr int64 and col int32 of random edges; the middle destination has `hub` of them."""
    generator = torch.Generator().manual_seed(seed)
    degree = torch.randint(0, max_degree + 1, (num_dst,), generator=generator)
    if hub:
        degree[num_dst // 2] = hub
    rowptr = torch.cat([torch.zeros(1, dtype=torch.long), degree.cumsum(0)])
    col = torch.randint(0, num_src, (int(rowptr[-1]),), generator=generator, dtype=torch.int32)
    return rowptr.to(DEVICE), col.to(DEVICE)


NORM_CASES = [(1, 2), (1, 256), (7, 100), (259, 7), (33, 300), (5, 3)]


@pytest.mark.parametrize("n, columns", NORM_CASES)
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_norm_relu_dropout(n, columns, dtype, bound):
    x, upstream = normal(n, columns, dtype=dtype), normal(n, columns, seed=1, dtype=dtype)
    gamma, beta = normal(columns, seed=2), normal(columns, seed=3)
    ids = torch.arange(n, device=DEVICE) * 7_654_321
    exact = [t.float().clone().requires_grad_() for t in (x, gamma, beta)]
    expected = plain_norm_relu_dropout(*exact, 0.3, KEY, ids, 1e-5)
    of_x, of_gamma, of_beta = torch.autograd.grad(expected, exact, upstream.float())
    out, mean, rstd = norm.forward(x, gamma, beta, 0.3, KEY, ids)
    got, sums = norm.backward(x, gamma, beta, 0.3, KEY, ids, mean, rstd, upstream.clone())
    assert not out[~keep_mask(KEY, ids, columns, 0.3)].any()
    assert_near(out, expected.detach(), bound)
    assert_near(got, of_x, 1e-4 if columns < 4 and dtype == torch.float32 else bound)
    assert_near(sums[0], of_gamma, bound)
    assert_near(sums[1], of_beta, bound)


def test_norm_without_dropout_and_the_bias_that_was_added_before():
    x, gamma, beta = normal(300, 20).requires_grad_(), normal(20, seed=1), normal(20, seed=2)
    bias = torch.zeros(20, device=DEVICE, requires_grad=True)
    ids = torch.arange(300, device=DEVICE)
    upstream = normal(300, 20, seed=3)
    expected = plain_norm_relu_dropout(x + bias, gamma, beta, 0.0, KEY, ids, 1e-5)
    (of_bias,) = torch.autograd.grad(expected, bias, upstream)
    x = x.detach()
    out, mean, rstd = norm.forward(x, gamma, beta, 0.0, KEY, ids)
    _, sums = norm.backward(x, gamma, beta, 0.0, KEY, ids, mean, rstd, upstream)
    assert_near(out, expected.detach(), 1e-5)
    assert_near(sums[2], of_bias, 1e-4)


SEGMENT_CASES = [(1, 1, 1, 0), (9, 20, 100, 0), (33, 40, 256, 0), (10, 12, 300, 0), (9, 40, 7, 401)]


@pytest.mark.parametrize("tile", [False, True])
@pytest.mark.parametrize("aggregator", ["mean", "sum"])
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("num_dst, num_src, columns, hub", SEGMENT_CASES)
def test_aggregate_and_its_gradient(num_dst, num_src, columns, hub, dtype, bound, aggregator, tile):
    rowptr, col = make_edges(num_dst, num_dst, num_src, hub=hub)
    x, width = normal(num_src, columns, dtype=dtype), segment.width_of(columns)
    upstream = normal(num_dst, 2 * width, seed=1, dtype=dtype)
    exact = x.float().requires_grad_()
    expected, root = plain_segment.aggregate_with_root(exact, rowptr, col, aggregator)
    halves = upstream[:, :columns].float(), upstream[:, width:][:, :columns].float()
    (of_x,) = torch.autograd.grad([expected, root], exact, halves)
    options = {"rows": 4, "unroll": 4, "tile": tile}
    got = segment.aggregate(x, rowptr, col, aggregator, hubs=hub > 0, **options)
    colptr, dst = plain_segment._by_source(rowptr, col, num_src)
    weights = rowptr.diff().float().reciprocal() if aggregator == "mean" else None
    gradient = segment.gradient(upstream, colptr, dst, columns, num_dst, weights, **options)
    assert_near(got[:, :columns], expected.detach(), bound)
    assert torch.equal(got[:, width:][:, :columns], x[:num_dst])
    assert not got[:, columns:width].any() and not got[:, width + columns :].any()
    assert_near(gradient, of_x, bound)


def test_aggregate_reads_a_padded_table_by_id():
    rowptr, col = make_edges(0, 6, 30)
    ids = torch.tensor([29, 0, 7, 3, 11, 5], device=DEVICE)
    table = torch.nn.functional.pad(normal(30, 100).bfloat16(), (0, 4))
    got = segment.aggregate(table, rowptr, col, ids=ids, columns=100)
    expected = plain_segment.segment_aggregate(table.float(), rowptr, col, "mean")
    assert_near(got[:, :104], expected, 1e-2)
    assert torch.equal(got[:, 104:], table[ids])


def test_a_later_layer_reads_the_transposed_edges_of_an_earlier_one():
    rowptr, col = make_edges(1, 12, 20)
    upstream = normal(5, 32, seed=1)
    colptr, dst = plain_segment._by_source(rowptr, col, 20)
    rows = rowptr[:6]
    own = plain_segment._by_source(rows, col[: int(rows[-1])], 20)
    got = segment.gradient(upstream, colptr, dst, 16, 5)
    assert torch.equal(got, segment.gradient(upstream, *own, 16, 5))


@pytest.mark.parametrize("way", [transpose.by_sort, transpose.by_count])
def test_edges_by_source(way):
    rowptr, col = make_edges(2, 50, 9, hub=300)
    owner = torch.repeat_interleave(torch.arange(50, device=DEVICE), rowptr.diff()).int()
    colptr, dst = plain_segment._by_source(rowptr, col, 9)
    got = way(col, owner, 9)
    assert torch.equal(got[0], colptr.int())
    assert torch.equal(got[1], dst.int())


SAMPLES = {
    "shallow": (50, 3, [2, 3], True, 1 << 20),
    "hubs, last hop not numbered": (3000, 20, [15, 10, 10], False, 1 << 20),
    "sizes read before each hop": (3000, 20, [15, 10, 10], True, 10),
    "no edges": (40, 0, [3, 2], True, 1 << 20),
    "one neighbor, then up to 32": (2100, 12, [1, 5, 32], False, 10),
    "one node": (1, 0, [2], True, 1),
}


@pytest.mark.parametrize("case", SAMPLES)
def test_samples_are_those_of_the_plain_samplers(case, monkeypatch):
    nodes, mean_degree, fanout, relabel_last, without_wait = SAMPLES[case]
    monkeypatch.setattr(sampler, "EDGES_WITHOUT_WAIT", without_wait)
    rng = np.random.default_rng(0)
    degree = rng.poisson(mean_degree, nodes)
    seeds = rng.permutation(nodes)[:8]
    if mean_degree:
        degree[[1, nodes // 2]] = fanout[0], 500  # as many as are drawn; a hub
        seeds = np.unique(np.append(seeds, [1, nodes // 2]))
    colptr = np.concatenate([[0], degree.cumsum()])
    row = rng.integers(0, nodes, colptr[-1]).astype(np.int32)
    on_device = [torch.from_numpy(array).to(DEVICE) for array in (colptr, row)]
    kernels = sampler.KernelSampler(*on_device)
    for key in (KEY, 1):  # the second sample finds the first one's scratch
        got = kernels.sample(seeds, fanout, key, relabel_last=relabel_last)
        for plain in (TensorSampler(*on_device), CpuSampler(colptr, row)):
            expected = plain.sample(seeds, fanout, key, relabel_last=relabel_last)
            assert got[4:] == expected[4:]
            for name, a, b in zip(got._fields, got[:4], expected[:4], strict=False):
                assert a.dtype == b.dtype, name
                assert torch.equal(a.cpu(), b.cpu()), name


def test_a_sample_waits_twice_at_most(monkeypatch):
    monkeypatch.setattr(sampler, "EDGES_WITHOUT_WAIT", 400)
    rng = np.random.default_rng(0)
    colptr = torch.arange(0, 30_001, 30, device=DEVICE)
    row = torch.from_numpy(rng.integers(0, 1000, 30_000).astype(np.int32)).to(DEVICE)
    kernels = sampler.KernelSampler(colptr, row)
    kernels.sample(np.arange(4), [5, 4, 4, 4], KEY, relabel_last=False)
    assert kernels.waits <= 2


@pytest.mark.parametrize("fused", [None, {}], ids=["apart", "gradient and norm in one"])
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_a_whole_step(dtype, bound, fused):
    """Logits and gradients. In bf16 a few values fall on the other side of the ReLU, on the plain
    path as well: gradients are then some percent from those in float32."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    colptr = torch.arange(0, 8_001, 20, device=DEVICE)
    row = torch.from_numpy(rng.integers(0, 400, 8_000).astype(np.int32)).to(DEVICE)
    blocks, owner = sampler.KernelSampler(colptr, row).sample_with_owners(
        np.arange(6), [4, 3, 3], KEY, relabel_last=False
    )
    mean = {"aggregator": "mean"}
    model = Network("sage", [20, 32, 32, 5], dropout=0.5, options=mean, dtype=dtype).to(DEVICE)
    table, labels = normal(400, 20), torch.arange(6, device=DEVICE) % 5
    by_source = transpose.by_sort(blocks.cols, owner, blocks.sources(2))

    def step(forward):
        model.zero_grad()
        logits = forward()
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        return [logits.detach(), *(p.grad for p in model.parameters())]

    kernels = KernelModel(model, Tuning(fused=fused))
    got = step(lambda: kernels(table, blocks, by_source))
    again = step(lambda: kernels(table, blocks, by_source))
    model.dtype = torch.float32
    for a, b, same in zip(got, step(lambda: model(table, blocks)), again, strict=True):
        assert_near(a, b, bound)
        assert torch.equal(a, same)
