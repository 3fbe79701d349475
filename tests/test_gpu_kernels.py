"""The kernels in Triton against the plain path, in Triton's interpreter where there is no GPU."""

from statistics import fmean

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

import triton
import triton.language as tl
import triton_interpreter  # noqa: F401
from gpu_kernel_calls import call_all
from hypothesis import given, settings
from hypothesis import strategies as st
from sagebench import operations, registry
from sagebench.engines.aggregated_features import build_table
from sagebench.engines.base import make_engine
from sagebench.kernels import segment as plain
from sagebench.kernels.fused import plain_norm_relu_dropout
from sagebench.kernels.gpu import segment, segment_max
from sagebench.kernels.gpu.autograd import NormReluDropout
from sagebench.kernels.mask import keep_mask
from sagebench.measure.clocks import PhaseClock
from sagebench.models.base import Network
from sagebench.operations import COSTS
from sagebench.sampling.device import kernels
from sagebench.sampling.device.by_source import by_source
from sagebench.sampling.device.uniform import Sampler as TensorSampler
from sagebench.sampling.uniform import Sampler as CpuSampler
from sagebench.training.distributed import Communicator, Progress, RankEnvironment
from sagebench.training.evaluation import Evaluator
from sagebench.training.trainer import EpochSums, Trainer
from torch.utils._python_dispatch import TorchDispatchMode
from trials import make_trial, tiny_store
from triton.runtime.interpreter import GridExecutor
from triton_accesses import Accesses

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
KEY = 0xFEDCBA9876543210
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
interpreted = pytest.mark.skipif(DEVICE.type == "cuda", reason="looks into the interpreter")
some = settings(deadline=None, max_examples=15)
dtypes = st.sampled_from(list(BOUNDS))
columns = st.sampled_from([1, 2, 7, 100, 256, 300])


@pytest.fixture(autouse=True)
def accesses():
    """Every kernel keeps to its tensors, and no program to what is another's: all examples."""
    if DEVICE.type == "cuda":
        yield None
        return
    with Accesses() as accesses:
        yield accesses
    assert accesses.found == []


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def distance(got, expected):
    return (got.float() - expected.float()).norm() / expected.float().norm().clamp(min=1e-3)


def assert_near(got, expected, bound):
    assert distance(got, expected) < bound


@st.composite
def edges(draw):
    """rowptr and col of random edges, and the number of sources; some rows empty, some hubs."""
    num_dst = draw(st.integers(1, 23))
    num_src = num_dst + draw(st.integers(0, 20))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    degree = torch.randint(0, 1 + draw(st.sampled_from([0, 1, 6])), (num_dst,), generator=generator)
    degree[num_dst // 2] = draw(st.sampled_from([0, 1, 128, 131, 300]))
    rowptr = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
    dtype = draw(st.sampled_from([torch.int32, torch.int64]))
    col = torch.randint(0, num_src, (int(rowptr[-1]),), generator=generator, dtype=dtype)
    return rowptr.to(DEVICE), col.to(DEVICE), num_src


def grouped(rowptr, col, num_src):
    owner = torch.repeat_interleave(torch.arange(len(rowptr) - 1, device=DEVICE), rowptr.diff())
    return by_source(col.int(), owner.int(), num_src)


@some
@given(n=st.sampled_from([1, 5, 33, 259]), f=columns, dtype=dtypes, p=st.sampled_from([0.0, 0.3]))
def test_norm_relu_dropout(n, f, dtype, p):
    upstream = normal(n, f, seed=1, dtype=dtype)
    x, gamma, beta = normal(n, f, dtype=dtype), normal(f, seed=2), normal(f, seed=3)
    ids = torch.arange(n, device=DEVICE) * 7_654_321
    exact = [t.float().clone().requires_grad_() for t in (x, gamma, beta)]
    expected = plain_norm_relu_dropout(*exact, p, KEY, ids, 1e-5)
    gradients = torch.autograd.grad(expected, exact, upstream.float())
    inputs = [t.clone().requires_grad_() for t in (x, gamma, beta)]
    out = NormReluDropout.apply(*inputs, p, KEY, ids, 1e-5)
    assert not out[~keep_mask(KEY, ids, f, p)].any()
    assert_near(out, expected, BOUNDS[dtype])
    got = torch.autograd.grad(out, inputs, upstream)
    for a, b in zip(got, gradients, strict=True):
        # The gradient of what one or two columns are normed to is little but rounding.
        if f > 2:
            assert_near(a, b, 3 * BOUNDS[dtype])


@some
@given(graph=edges(), f=columns, dtype=dtypes, aggregator=st.sampled_from(["mean", "sum"]))
def test_aggregate_and_its_gradient(graph, f, dtype, aggregator):
    rowptr, col, num_src = graph
    num_dst, width = len(rowptr) - 1, segment.width_of(f)
    x = normal(num_src, f, dtype=dtype)
    upstream = normal(num_dst, 2 * width, seed=1, dtype=dtype)
    exact = x.float().requires_grad_()
    expected, root = plain.aggregate_with_root(exact, rowptr, col, aggregator)
    halves = upstream[:, :f].float(), upstream[:, width : width + f].float()
    (of_x,) = torch.autograd.grad([expected, root], exact, halves)
    mean = aggregator == "mean"
    got = segment.aggregate(x, rowptr, col, mean, dtype, True, None, None)
    alone = segment.aggregate(x, rowptr, col, mean, dtype, False, None, None)
    of_both = upstream[:, :f], upstream[:, width : width + f]
    gradient = segment.gradient(*of_both, *grouped(*graph), rowptr if mean else None, 0)
    assert_near(got[:, :f], expected.detach(), BOUNDS[dtype])
    assert_near(got[:, :f], alone, BOUNDS[dtype])
    assert torch.equal(got[:, width : width + f], x[:num_dst])
    assert not got[:, f:width].any() and not got[:, width + f :].any()
    assert_near(gradient, of_x, BOUNDS[dtype])


def test_aggregate_reads_float32_features_by_id():
    rowptr, col, _ = torch.tensor([0, 2, 2, 5]), torch.tensor([29, 3, 7, 7, 0]).int(), 30
    ids = torch.tensor([29, 0, 7], device=DEVICE)
    features = normal(30, 100)
    edges = rowptr.to(DEVICE), col.to(DEVICE)
    got = segment.aggregate(features, *edges, True, torch.bfloat16, True, ids, None)
    expected = plain.segment_aggregate(features, rowptr.to(DEVICE), col.to(DEVICE), "mean")
    assert_near(got[:, :100], expected, 1e-2)
    assert_near(got[:, 104:204], features[ids], 1e-2)


@some
@given(graph=edges(), f=columns, dtype=dtypes, levels=st.sampled_from([2, 1000]))
def test_max_and_its_gradient(graph, f, dtype, levels):
    """levels: of the values; with few of them, many edges reach the maximum."""
    rowptr, col, num_src = graph
    num_dst = len(rowptr) - 1
    x = (normal(num_src, f) * levels).round().add_(0.5).div_(levels).to(dtype)
    upstream, of_root = normal(num_dst, f, seed=1), normal(num_dst, f, seed=2)
    exact = x.float().requires_grad_()
    expected, root = plain.aggregate_with_root(exact, rowptr, col, "max")
    (of_x,) = torch.autograd.grad([expected, root], exact, [upstream, of_root])
    out, tied = segment_max.maximum(x, rowptr, col, True)
    assert torch.equal(out.float(), expected)
    got = segment_max.gradient(
        x, out, tied, upstream.to(dtype), of_root.to(dtype), *grouped(*graph), len(col)
    )
    assert_near(got, of_x, BOUNDS[dtype])
    assert torch.equal(segment_max.maximum(x, rowptr, col, False)[0], out)


def test_a_maximum_that_is_not_a_number_stays_so():
    x = torch.tensor([[1.0], [float("nan")], [2.0]], device=DEVICE)
    rowptr, col = torch.tensor([0, 3, 4]), torch.tensor([0, 1, 2, 0]).int()
    out, _ = segment_max.maximum(x, rowptr.to(DEVICE), col.to(DEVICE), True)
    assert out[0].isnan() and out[1] == 1.0


@pytest.mark.parametrize("edge", [3, 299])  # among a hub's first edges, and behind them
def test_of_a_hub_as_well(edge):
    x = normal(300, 5)
    x[edge, 2] = float("nan")
    col = torch.arange(300, dtype=torch.int32, device=DEVICE)
    out, tied = segment_max.maximum(x, torch.tensor([0, 300], device=DEVICE), col, True)
    assert out[0, 2].isnan()
    others = [0, 1, 3, 4]
    assert torch.equal(out[0, others], x.amax(0)[others])
    assert torch.equal(tied[0, others], torch.ones(4, dtype=torch.int32, device=DEVICE))


@pytest.mark.parametrize("by_id", [True, False])
def test_what_is_known_stands_behind_what_is_aggregated(by_id):
    x, known = normal(9, 20), normal(9 if by_id else 2, 20, seed=1)
    rowptr = torch.tensor([0, 2, 3, 3], device=DEVICE)
    col = torch.tensor([4, 5, 8], dtype=torch.int32, device=DEVICE)
    ids = torch.tensor([3, 1, 0, 7, 2], device=DEVICE) if by_id else None
    both = segment.aggregate(x, rowptr, col, True, torch.float32, True, ids, known)
    expected = torch.stack([(x[4] + x[5]) / 2, x[8], torch.zeros_like(x[0])])
    expected = torch.cat([expected, known[[7, 2]] if by_id else known])
    aggregated, root = both.split(both.shape[1] // 2, 1)
    torch.testing.assert_close(aggregated[:, :20], expected)
    torch.testing.assert_close(root[:, :20], x[ids] if by_id else x[:5])
    assert not aggregated[:, 20:].any() and not root[:, 20:].any()


@some
@given(graph=edges(), kind=st.sampled_from(["mean", "max"]), share=st.floats(0, 1))
def test_a_later_layer_reads_the_edges_of_an_earlier_one(graph, kind, share):
    rowptr, col, num_src = graph
    rows = int(share * (len(rowptr) - 1))
    own = rowptr[: rows + 1]
    f, of_all = 7, grouped(*graph)
    of_own = grouped(own, col[: int(own[-1])], num_src)
    x, upstream = normal(num_src, f), normal(rows, 16, seed=1)

    def gradient(edges):
        if kind == "mean":
            return segment.gradient(upstream[:, :f], upstream[:, 8 : 8 + f], *edges, rowptr, 0)
        out, tied = segment_max.maximum(x, own, col[: int(own[-1])], True)
        halves = upstream[:, :f].contiguous(), upstream[:, 8 : 8 + f].contiguous()
        return segment_max.gradient(x, out, tied, *halves, *edges, 0)

    assert torch.equal(gradient(of_all), gradient(of_own))


@some
@given(graph=edges())
def test_edges_by_source(graph):
    rowptr, col, num_src = graph
    colptr, dst = plain._by_source(rowptr, col, num_src)
    got = grouped(*graph)
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


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("case", SAMPLES)
def test_samples_are_those_of_the_plain_samplers(case, dtype, monkeypatch):
    nodes, mean_degree, fanout, relabel_last, without_wait = SAMPLES[case]
    monkeypatch.setattr(kernels, "EDGES_WITHOUT_WAIT", without_wait)
    rng = np.random.default_rng(0)
    degree = rng.poisson(mean_degree, nodes)
    seeds = rng.permutation(nodes)[:8]
    if mean_degree:
        degree[[1, nodes // 2]] = fanout[0], 500  # as many as are drawn; a hub
        seeds = np.unique(np.append(seeds, [1, nodes // 2]))
    colptr = np.concatenate([[0], degree.cumsum()])
    row = rng.integers(0, nodes, colptr[-1]).astype(dtype)
    on_device = [torch.from_numpy(array).to(DEVICE) for array in (colptr, row)]
    sampler = kernels.KernelSampler(*on_device)
    for key in (KEY, 1):  # the second sample finds the first one's scratch
        got, owner = sampler.sample(seeds, fanout, key, relabel_last=relabel_last)
        for plain_sampler in (TensorSampler(*on_device), CpuSampler(colptr, row)):
            expected = plain_sampler.sample(seeds, fanout, key, relabel_last=relabel_last)
            assert got[4:] == expected[4:]
            for name, a, b in zip(got._fields, got[:4], expected[:4], strict=False):
                assert a.dtype == b.dtype, name
                assert torch.equal(a.cpu(), b.cpu()), name
        rows = torch.arange(len(got.rowptr) - 1, device=DEVICE)
        owners = torch.repeat_interleave(rows, got.rowptr.diff())
        assert torch.equal(owner, owners[: len(got.cols)].int())


def test_a_sample_waits_twice_at_most(monkeypatch):
    monkeypatch.setattr(kernels, "EDGES_WITHOUT_WAIT", 400)
    waits = []
    read = kernels.KernelSampler._read
    monkeypatch.setattr(
        kernels.KernelSampler, "_read", lambda self, sizes: waits.append(1) or read(self, sizes)
    )
    rng = np.random.default_rng(0)
    colptr = torch.arange(0, 30_001, 30, device=DEVICE)
    row = torch.from_numpy(rng.integers(0, 1000, 30_000).astype(np.int32)).to(DEVICE)
    sampler = kernels.KernelSampler(colptr, row)
    sampler.sample(np.arange(4), [5, 4, 4, 4], KEY, relabel_last=False)
    assert len(waits) <= 2


class Declared(TorchDispatchMode):
    """Counts the launches that operations declare, and their calls."""

    def __init__(self):
        super().__init__()
        self.launches, self.called = 0, set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation._overloadpacket.__name__
        if cost := COSTS.get(name):
            self.launches += cost(*args, **kwargs or {}).launches
            self.called.add(name)
        return operation(*args, **kwargs or {})


@interpreted
def test_operations_declare_the_launches_that_are_seen(monkeypatch):
    seen = []
    launch = GridExecutor.__call__
    monkeypatch.setattr(
        GridExecutor,
        "__call__",
        lambda *args, **kwargs: seen.append(1) or launch(*args, **kwargs),
    )
    with Declared() as declared:
        call_all()
    assert declared.called == set(COSTS)
    assert declared.launches == len(seen)


@triton.jit
def _faulty_kernel(x, n):
    """Stores one value too many, and its number where every program does."""
    at = tl.program_id(0)
    tl.store(x, at)
    tl.store(x + 1 + at, tl.load(x + 2), at < n)


@interpreted
def test_accesses_that_are_wrong_are_found(accesses):
    _faulty_kernel[(4,)](torch.zeros(4, dtype=torch.int32), 4)
    outside, values, stale = accesses.found
    accesses.found.clear()
    assert "1 accesses outside" in outside
    assert "different values" in values
    assert "reads what another one stores" in stale


MODELS = [
    *(("sage", {"aggregator": aggregator}) for aggregator in ("mean", "sum", "max")),
    ("gin", {}),
    ("gcn", {}),
    ("gat", {"heads": 2}),
]


@pytest.mark.parametrize("last_hop", ["sampled", "known"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize(("model", "options"), MODELS)
def test_a_step_is_that_of_the_plain_path(model, options, dtype, bound, last_hop, monkeypatch):
    """Logits and gradients. In bf16 a few values fall on the other side of the ReLU: gradients are
    then 1 to 6 percent from those in float32, on the plain path as well."""
    reads = "AGGREGATES_FEATURES" in registry.declared("model", model)
    if last_hop == "known" and not reads:
        pytest.skip(f"{model} samples its last hop")
    torch.manual_seed(0)
    monkeypatch.setattr(operations, "device_types", {DEVICE.type})
    rng = np.random.default_rng(0)
    colptr = torch.arange(0, 8_001, 20, device=DEVICE)
    row = torch.from_numpy(rng.integers(0, 400, 8_000).astype(np.int32)).to(DEVICE)
    features, labels = normal(400, 20), torch.arange(3, device=DEVICE)
    whole_hops, seeds = not reads or last_hop == "known", np.arange(3)
    fanout = [3, 3] if last_hop == "known" else [3, 3, 2]
    sampler = TensorSampler(colptr, row)
    blocks = sampler.sample(seeds, fanout, KEY, relabel_last=whole_hops)
    assert sampler._kernels is not None
    known, degrees = None, torch.full((len(blocks.node_ids),), 20.0, device=DEVICE)
    if last_hop == "known":
        known = normal(400, 20, seed=5)
        blocks = blocks.with_last_hop_known()
    inputs = (features, blocks, False, None, known)
    if not reads:
        inputs = (features[blocks.node_ids], blocks, True, degrees, None)
    network = Network(model, [20, 32, 32, 5], dropout=0.5, options=options, dtype=dtype).to(DEVICE)

    def step(network):
        network.zero_grad()
        logits = network(*inputs)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        return [logits.detach(), *(p.grad.clone() for p in network.parameters())]

    got, again = step(network), step(network)
    operations.device_types.clear()
    exact = Network(model, [20, 32, 32, 5], dropout=0.5, options=options).to(DEVICE)
    exact.load_state_dict(network.state_dict())
    assert all(map(torch.equal, got, again))
    assert fmean(map(distance, got, step(exact))) < bound


@interpreted
@pytest.mark.parametrize("fanout", [(3, 2, 2), (3, 2, 0), (3, 2, -1)])
def test_an_epoch_is_that_of_the_plain_path(tmp_path, fanout):
    """Its last optimizer step has micro-batches without seed nodes. One thread: the interpreter is
    not for several."""
    store = tiny_store(tmp_path / "tiny", nodes=300, train=40)
    list(build_table(store, "mean"))
    trial = make_trial(
        fanout=fanout, placement="device", accumulation=3, hidden_channels=8, dropout=0.5,
        batch_size=16, sampling_workers=0,
    )  # fmt: skip

    def epoch():
        torch.manual_seed(1)
        engine = make_engine(trial, store, DEVICE)
        communicator = Communicator(RankEnvironment(), DEVICE)
        progress = Progress(False)
        trainer = Trainer(trial, engine, store.train, communicator, PhaseClock(), progress)
        loss = trainer.epoch(EpochSums(1, trial.layers, DEVICE)).loss
        evaluator = Evaluator(trial, store, communicator, engine.loader, progress)
        weights = engine.model.state_dict()
        return loss, [evaluator.accuracy(weights, store.test, how) for how in ("full", "sampled")]

    plain_loss, plain_accuracies = epoch()
    operations.device_types.add(DEVICE.type)
    try:
        loss, accuracies = epoch()
    finally:
        operations.device_types.clear()
    assert loss == pytest.approx(plain_loss, rel=1e-4)
    assert accuracies == pytest.approx(plain_accuracies, abs=0.02)
