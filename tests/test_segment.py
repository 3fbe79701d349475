"""Segment aggregation against PyG's own aggregation over an edge list."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sagebench.kernels import segment
from sagebench.kernels.segment import AGGREGATORS, aggregate_with_root, segment_aggregate

PATHS = ("kernels", "plain torch")


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """Both implementations: compiled loops where there are any, and torch's operations alone."""
    choose(monkeypatch, request.param)


def choose(monkeypatch, path):
    if path == "plain torch":
        monkeypatch.setattr(segment, "_has_kernel", lambda _: False)


def make_case(seed, num_dst, num_src, columns, max_degree=6, dtype=torch.float32, ties=False):
    generator = torch.Generator().manual_seed(seed)
    degree = torch.randint(0, max_degree + 1, (num_dst,), generator=generator)
    degree *= num_src > 0
    rowptr = torch.cat([torch.zeros(1, dtype=torch.long), degree.cumsum(0)])
    col = torch.randint(0, max(num_src, 1), (int(rowptr[-1]),), generator=generator)
    x = torch.randn(num_src, columns, generator=generator, dtype=dtype)
    if ties:
        x = x.round() + 10  # not at 0, where scatter_reduce splits differently
    return x, rowptr, col


def oracle(x, rowptr, col, aggregator):
    """PyG's aggregation, as SAGEConv applies it."""
    from torch_geometric.utils import scatter

    dst = torch.repeat_interleave(torch.arange(len(rowptr) - 1), rowptr.diff())
    return scatter(x[col], dst, 0, len(rowptr) - 1, aggregator)


def gradient_of(function, x, upstream):
    x = x.clone().requires_grad_()
    out = function(x)
    (gradient,) = torch.autograd.grad(out, x, upstream.to(out.dtype))
    return out.detach(), gradient


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("aggregator", AGGREGATORS)
@settings(max_examples=25)
@given(
    seed=st.integers(0, 99),
    num_dst=st.integers(0, 9),
    num_src=st.integers(0, 9),
    columns=st.integers(1, 40),
    ties=st.booleans(),
    wide=st.booleans(),
)
def test_equals_pyg(path, aggregator, seed, num_dst, num_src, columns, ties, wide):
    x, rowptr, col = make_case(seed, num_dst, num_src, columns, ties=ties)
    upstream = torch.randn(num_dst, columns, generator=torch.Generator().manual_seed(seed + 1))
    index = torch.long if wide else torch.int32
    expected = gradient_of(lambda x: oracle(x, rowptr, col, aggregator), x, upstream)
    with pytest.MonkeyPatch.context() as monkeypatch:
        choose(monkeypatch, path)
        got = gradient_of(
            lambda x: segment_aggregate(x, rowptr.to(index), col.to(index), aggregator), x, upstream
        )
    torch.testing.assert_close(got[0], expected[0])
    torch.testing.assert_close(got[1], expected[1])


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_gradcheck(path, aggregator):
    x, rowptr, col = make_case(3, 7, 5, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: segment_aggregate(x, rowptr, col, aggregator), x.requires_grad_()
    )


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_no_edges_is_zero(path, aggregator):
    x = torch.randn(4, 3, requires_grad=True)
    col = torch.zeros(0, dtype=torch.int32)
    out = segment_aggregate(x, torch.zeros(6, dtype=torch.int32), col, aggregator)
    assert torch.equal(out, torch.zeros(5, 3))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient, torch.zeros(4, 3))


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_bfloat16(path, aggregator):
    x, rowptr, col = make_case(5, 20, 11, 32)
    upstream = torch.randn(20, 32)
    short = x.bfloat16()
    out, gradient = gradient_of(
        lambda x: segment_aggregate(x, rowptr, col, aggregator), short, upstream
    )
    expected = gradient_of(
        lambda x: oracle(x, rowptr, col, aggregator), short.float(), upstream.bfloat16().float()
    )
    assert out.dtype == gradient.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected[0], rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(gradient.float(), expected[1], rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_threads_change_nothing(aggregator):
    x, rowptr, col = make_case(7, 3000, 2000, 65)
    upstream = torch.randn(3000, 65)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(
                gradient_of(lambda x: segment_aggregate(x, rowptr, col, aggregator), x, upstream)
            )
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert torch.equal(result[0], results[0][0])
        assert torch.equal(result[1], results[0][1])


def test_max_splits_evenly_over_ties_at_zero(path):
    x = torch.tensor([[0.0], [0.0], [-1.0]], requires_grad=True)
    out = segment_aggregate(x, torch.tensor([0, 3]), torch.tensor([0, 1, 2]), "max")
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.flatten().tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_nan_is_not_hidden(path, aggregator):
    x = torch.tensor([[1.0], [float("nan")], [2.0]])
    for order in ([0, 1, 2], [1, 0, 2], [0, 2, 1]):
        out = segment_aggregate(x, torch.tensor([0, 3]), torch.tensor(order), aggregator)
        assert torch.isnan(out).all()


def test_reads_a_memory_mapped_matrix(path, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12, dtype=np.float32).reshape(4, 3))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")
    x, rowptr, col = torch.from_numpy(mapped), torch.tensor([0, 2]), torch.tensor([1, 3])
    for aggregator, row in (("mean", [6, 7, 8]), ("sum", [12, 14, 16]), ("max", [9, 10, 11])):
        assert segment_aggregate(x, rowptr, col, aggregator).tolist() == [row]


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@pytest.mark.parametrize("used", [(1, 1), (1, 0), (0, 1)])
def test_root_and_neighbors_share_one_gradient(path, aggregator, used):
    x, rowptr, col = make_case(11, 6, 9, 5, dtype=torch.float64)
    upstream = torch.randn(2, 6, 5, dtype=torch.float64)

    def loss(outputs):
        return sum(
            (u * g * out).sum() for u, g, out in zip(used, upstream, outputs, strict=True) if u
        )

    x.requires_grad_()
    outputs = aggregate_with_root(x, rowptr, col, aggregator)
    assert torch.equal(outputs[1], x[:6])
    (got,) = torch.autograd.grad(loss(outputs), x)
    apart = segment_aggregate(x, rowptr, col, aggregator), x[:6]
    (expected,) = torch.autograd.grad(loss(apart), x)
    torch.testing.assert_close(got, expected)


def test_a_misspelt_aggregator_is_named():
    with pytest.raises(ValueError, match="'median'; write one of mean, sum, max"):
        segment_aggregate(torch.ones(1, 1), torch.tensor([0, 1]), torch.tensor([0]), "median")


@pytest.mark.cuda
@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_cuda_equals_cpu(aggregator):
    x, rowptr, col = make_case(9, 300, 200, 64)
    upstream = torch.randn(300, 64)
    expected = gradient_of(lambda x: segment_aggregate(x, rowptr, col, aggregator), x, upstream)
    got = gradient_of(
        lambda x: segment_aggregate(x, rowptr.cuda(), col.cuda(), aggregator),
        x.cuda(),
        upstream.cuda(),
    )
    torch.testing.assert_close(got[0].cpu(), expected[0])
    torch.testing.assert_close(got[1].cpu(), expected[1])
