"""What a GPU must do as the CPU does; everything else about it is measured, not tested."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from itertools import islice

import numpy as np
import pytest
import torch
from graphs import random_csc
from sagebench.engines.base import make_engine, network_arguments
from sagebench.engines.loaders import PinnedBuffers, SideStream
from sagebench.engines.precision import set_precision
from sagebench.kernels.choice import kernels_chosen
from sagebench.measure.clocks import PhaseClock
from sagebench.measure.machine import Nvml
from sagebench.measure.memory import PeakMemory
from sagebench.models.base import Network
from sagebench.operations import AUTO, PLAIN
from sagebench.sampling.device.uniform import Sampler as TensorSampler
from sagebench.sampling.order import SeedOrder
from sagebench.sampling.uniform import Sampler as CpuSampler
from sagebench.training.distributed import Communicator, Progress, RankEnvironment
from sagebench.training.evaluation import Evaluator
from sagebench.training.rank import explain
from sagebench.training.trainer import EpochSums, Trainer
from trials import make_trial, tiny_store

pytestmark = pytest.mark.cuda
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("store") / "tiny")


@pytest.fixture(autouse=True)
def true_fp32():
    set_precision(make_trial(), CPU)


@pytest.fixture(autouse=True, params=[AUTO, PLAIN])
def kernels(request):
    """Each test by Triton's kernels, and on the plain path."""
    with kernels_chosen(request.param, "cuda"):
        yield request.param


def weights_of(trial, store):
    torch.manual_seed(1)
    return Network(**network_arguments(trial, store)).state_dict()


@contextmanager
def counted_waits():
    """How often the host waits for the device within, a list that holds a message each."""
    waits = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: waits.append(str(message))
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("aggregator", ["mean", "sum"])
def test_a_step_waits_for_nothing(store, aggregator, precision):
    trial = make_trial(dropout=0.5, aggregator=aggregator, precision=precision, device="cuda")
    trainer = make_trainer(trial, store)
    batches = [
        trainer.engine.load(trainer.engine.sample(micro_batch))
        for micro_batch in islice(trainer.order.micro_batches(1, 0), 3)
    ]
    sums = EpochSums(1, trial.layers, CUDA)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            sums.add(batch, *trainer.micro_step(batch, synchronise=True))
            trainer.optimizer_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("fanout", [(15, 10, 10, 10, 10), (4, 0, 0), (-1, 3)])
def test_a_sample_waits_once_a_hop(fanout):
    colptr, row = (torch.from_numpy(array).to(CUDA) for array in random_csc(5000, 50_000))
    sampler = TensorSampler(colptr, row)
    seeds = np.arange(64)
    sampler.sample(seeds, fanout, 1, relabel_last=False)
    with counted_waits() as waits:
        sampler.sample(seeds, fanout, 2, relabel_last=False)
    assert len(waits) <= (2 if sampler.groups_by_source(fanout, CUDA) else len(fanout)), waits


def test_samples_are_drawn_on_a_stream_of_high_priority(store):
    engine = make_engine(make_trial(device="cuda"), store, CUDA)
    assert engine._side._stream.priority < torch.cuda.current_stream().priority


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs: a thread starts on 0")
def test_a_background_thread_works_on_the_ranks_own_device():
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    seen = SideStream(last).ahead(lambda _: torch.cuda.current_device(), range(4), 2)
    assert set(seen) == {last.index}


def test_pinned_buffers_are_used_again_once_copied():
    buffers = PinnedBuffers()
    sent = []
    for value in range(20):
        taken = buffers.take((300, 1000 + value), torch.float32)
        assert taken.is_pinned()
        taken.fill_(value)
        sent.append(taken.to(CUDA, non_blocking=True))
        buffers.give_back(taken)
    assert buffers._free.qsize() == 1
    assert all((tensor == value).all() for value, tensor in enumerate(sent))


@pytest.mark.parametrize("relabel_last", [True, False])
@pytest.mark.parametrize("fanout", [(15, 10, 10, 10, 10), (50, 0, 0), (-1, 4), (3, -1), (1, 1)])
def test_sampler_is_the_cpu_sampler(fanout, relabel_last):
    colptr, row = random_csc(50_000, 1_000_000)
    cpu = CpuSampler(colptr, row)
    cuda = TensorSampler(torch.from_numpy(colptr).to(CUDA), torch.from_numpy(row).to(CUDA))
    for key, count in ((1, 256), (2**64 - 1, 7), (3, 0)):
        seeds = np.random.default_rng(key).choice(50_000, count, replace=False)
        expected = cpu.sample(seeds, fanout, key, relabel_last=relabel_last)
        found = cuda.sample(seeds, fanout, key, relabel_last=relabel_last)
        for one, other in zip(found[:4], expected[:4], strict=True):
            assert one.is_cuda and one.dtype == other.dtype
            assert torch.equal(one.cpu(), other)
        assert found[4:] == expected[4:]


def epoch_of(store, device, **values):
    """Logits of every micro-batch, and the gradients of all of them together, on the CPU."""
    trial = make_trial(dropout=0.5, **values)
    engine = make_engine(trial, store, device)
    engine.model.load_state_dict(weights_of(trial, store))
    order = SeedOrder(store.train, trial.batch_size, trial.accumulation, 1, trial.seed)
    logits = []
    for batch in engine.stream(order.micro_batches(1, 0)):
        if len(batch.labels):
            out = engine.model(*batch.inputs).float()
            torch.nn.functional.cross_entropy(out, batch.labels, reduction="sum").backward()
            logits.append(out.detach().cpu())
    return torch.cat(logits), [p.grad.cpu() for p in engine.model.parameters()]


def assert_near(found, expected, tolerance):
    for one, other in zip([found[0], *found[1]], [expected[0], *expected[1]], strict=True):
        assert (one - other).norm() <= tolerance * other.norm()


@pytest.mark.parametrize("aggregator", ["mean", "sum", "max"])
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("placement", ["auto", "device", "host"])
def test_placements_compute_what_the_cpu_computes(store, placement, workers, aggregator):
    values = {"sampling_workers": workers, "aggregator": aggregator}
    expected = epoch_of(store, CPU, **values)
    assert_near(epoch_of(store, CUDA, placement=placement, **values), expected, 1e-4)


def test_bf16_is_near(store):
    logits, _ = epoch_of(store, CUDA, precision="bf16")
    expected, _ = epoch_of(store, CPU)
    assert (logits - expected).norm() <= 0.03 * expected.norm()


def test_the_same_again_to_the_bit(store):
    (logits, gradients), again = (
        epoch_of(store, CUDA, precision="bf16", sampling_workers=3) for _ in range(2)
    )
    assert torch.equal(logits, again[0])
    assert all(map(torch.equal, gradients, again[1]))


@pytest.mark.needs("gcc")
@pytest.mark.slow  # the compiler takes a while
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_is_near(store, precision, kernels):
    if kernels == AUTO:
        pytest.skip("compile: true needs kernels: plain")
    expected = epoch_of(store, CUDA, precision=precision)
    found = epoch_of(store, CUDA, precision=precision, compile=True)
    assert_near(found, expected, 1e-4 if precision == "fp32" else 0.1)


@pytest.mark.parametrize("method", ["full", "sampled"])
@pytest.mark.parametrize("placement", ["device", "host"])
@pytest.mark.parametrize("home", [CPU, CUDA])  # of the hidden layers: by what is free
def test_evaluation_is_the_cpus(store, monkeypatch, home, placement, method):
    monkeypatch.setattr(Evaluator, "_home", lambda self: home if self.device == CUDA else CPU)
    if home == CPU:  # as little fits for the aggregation
        monkeypatch.setattr(Evaluator, "_columns_that_fit", lambda *_: 3)
    trial = make_trial(placement=placement)
    accuracies = []
    for device in (CPU, CUDA):
        engine = make_engine(trial, store, device)
        communicator = Communicator(RankEnvironment(), device)
        evaluator = Evaluator(trial, store, communicator, engine.loader, Progress(False))
        accuracies.append(evaluator.accuracy(weights_of(trial, store), store.test, method))
    assert accuracies[0] == pytest.approx(accuracies[1], abs=1 / len(store.test))


def make_trainer(trial, store):
    engine = make_engine(trial, store, CUDA)
    communicator = Communicator(RankEnvironment(), CUDA)
    clock = PhaseClock(torch.cuda.synchronize)
    trainer = Trainer(trial, engine, store.train, communicator, clock, Progress(False))
    trainer.warm_up()
    return trainer


@pytest.mark.parametrize("placement", ["device", "host"])
def test_an_epoch(store, placement):
    """The loop on a GPU: the loss of every epoch is the CPU's, and it falls."""
    losses = []
    for device in (CPU, CUDA):
        trial = make_trial(placement=placement, dropout=0.5, device=device.type)
        engine = make_engine(trial, store, device)
        engine.model.load_state_dict(weights_of(trial, store))
        clock = PhaseClock(torch.cuda.synchronize)
        communicator = Communicator(RankEnvironment(), device)
        trainer = Trainer(trial, engine, store.train, communicator, clock, Progress(False))
        trainer.warm_up()
        records = [trainer.epoch(EpochSums(epoch, trial.layers, device)) for epoch in (1, 2)]
        assert trainer.time_phases(3)["micro_steps"] == trial.phase_window_steps
        losses.append([record.loss for record in records])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    assert losses[1][1] < losses[1][0]


def test_an_exhausted_device_is_told_as_such():
    with pytest.raises(torch.cuda.OutOfMemoryError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8, device=CUDA)
    end = explain(caught.value, CUDA, None)
    total = torch.cuda.get_device_properties(CUDA).total_memory
    assert (end.limit.kind, end.limit.unit) == ("device_memory", "GiB")
    assert end.limit.value == pytest.approx(total / 2**30, abs=0.01)
    assert explain(MemoryError(), CUDA, 2.0).limit.kind == "host_memory"


def test_nvml_reads_this_processs_gpu():
    """The GPU works meanwhile, so that it takes power and its clocks are up."""
    nvml, a = Nvml(), torch.randn(4096, 4096, device=CUDA)
    before = nvml.energy_j(1)
    if before is None:
        pytest.skip("NVML has no energy counter of this GPU")
    for _ in range(400):
        a = torch.nn.functional.normalize(a @ a)
    torch.cuda.synchronize()
    state, limits = nvml.state(0), nvml.limits(0)
    assert nvml.energy_j(1) > before
    assert 0 < state["sm_clock_mhz"] <= limits["sm_clock_max_mhz"]
    assert 0 < state["power_w"] < 1.5 * limits["power_limit_w"]
    assert isinstance(state["throttle_reasons"], list)


def test_what_is_used_of_the_device_is_read_at_the_end_alone():
    """What a stretch took and gave back is in the allocator's peak, and not in what is used."""
    peak, size = PeakMemory(CUDA), 2 << 30
    with peak:
        torch.empty(size, dtype=torch.uint8, device=CUDA)
        torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(CUDA)
    read = peak.read()
    assert read["peak_reserved_bytes"] >= size
    assert read["peak_device_used_bytes"] == pytest.approx(total - free, abs=size // 2)
