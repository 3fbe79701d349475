"""What a GPU must do as the CPU does; everything else about it is measured, not tested."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import random_csc
from sagebench.measure.clocks import PhaseClock
from sagebench.model.graphsage import GraphSAGE
from sagebench.sampling.cpu import CpuSampler
from sagebench.sampling.order import SeedOrder
from sagebench.sampling.tensor import TensorSampler
from sagebench.training.distributed import Communicator, RankEnvironment
from sagebench.training.engines import make_engine, model_arguments
from sagebench.training.epoch_sums import EpochSums
from sagebench.training.evaluation import Evaluator
from sagebench.training.precision import set_precision
from sagebench.training.progress import Progress
from sagebench.training.tensors import torch_view
from sagebench.training.trainer import Trainer
from trials import make_trial, tiny_store

pytestmark = pytest.mark.cuda
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("store") / "tiny")


@pytest.fixture(autouse=True)
def true_fp32():
    set_precision(make_trial(), CPU)


def weights_of(trial, store):
    torch.manual_seed(1)
    return GraphSAGE(**model_arguments(trial, store)).state_dict()


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


@pytest.mark.needs("g++")
@pytest.mark.slow  # the compiler takes a while
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_is_near(store, precision):
    expected = epoch_of(store, CUDA, precision=precision)
    found = epoch_of(store, CUDA, precision=precision, compile=True)
    assert_near(found, expected, 1e-4 if precision == "fp32" else 0.1)


@pytest.mark.parametrize("method", ["full", "sampled"])
@pytest.mark.parametrize("placement", ["device", "host"])
@pytest.mark.parametrize("home", [CPU, CUDA])  # of the hidden layers: by what is free
def test_evaluation_is_the_cpus(store, monkeypatch, home, placement, method):
    monkeypatch.setattr(Evaluator, "_home", lambda self: home if self.device == CUDA else CPU)
    trial = make_trial(placement=placement)
    accuracies = []
    for device in (CPU, CUDA):
        engine = make_engine(trial, store, device)
        labels = torch_view(store.labels).to(device)
        communicator = Communicator(RankEnvironment(), device)
        evaluator = Evaluator(trial, store, communicator, labels, engine.feed)
        accuracies.append(evaluator.accuracy(weights_of(trial, store), store.test, method))
    assert accuracies[0] == pytest.approx(accuracies[1], abs=1 / len(store.test))


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
        losses.append([record["loss"] for record in records])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    assert losses[1][1] < losses[1][0]
