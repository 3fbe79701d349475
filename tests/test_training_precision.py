"""fp32, tf32, bf16, and torch.compile: what they change, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from sagebench.engines import precision
from sagebench.engines.base import make_engine
from sagebench.engines.precision import compile_model, set_precision, true_float32
from sagebench.errors import UserError
from sagebench.sampling.order import SeedOrder
from sagebench.training.trainer import LossModule
from trials import make_trial, tiny_store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("store") / "tiny")


def step_of(store, **values):
    """Logits, and gradients by name, of the first two micro-batches; the same weights each time."""
    trial = make_trial(**{"dropout": 0.0, "hidden_channels": 32, **values})
    torch.manual_seed(1)
    weights = make_engine(make_trial(hidden_channels=32), store, CPU).model.state_dict()
    engine = make_engine(trial, store, CPU)
    engine.model.load_state_dict(weights)
    micro_batches = list(SeedOrder(store.train, 64, 1, 1, 0).micro_batches(1, 0))[:2]
    logits = []
    for batch in engine.stream(micro_batches):
        logits.append(engine.model(*batch.inputs).detach())
        LossModule(engine.model)(batch.inputs, batch.labels)[0].backward()
    return torch.cat(logits), {n: p.grad for n, p in engine.model.named_parameters()}


def assert_near(found, expected, of_logits, of_gradients):
    assert (found[0].float() - expected[0].float()).norm() <= of_logits * expected[0].norm()
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).norm() <= of_gradients * gradient.norm(), name


@pytest.mark.parametrize("aggregator", ["mean", "sum", "max"])
@pytest.mark.parametrize("engine", ["blocks", "trimmed", "reference"])
def test_bf16_is_near_fp32_and_keeps_its_parameters(store, engine, aggregator):
    values = {"engine": engine, "aggregator": aggregator, "sampling_workers": 0}
    expected = step_of(store, **values)
    logits, gradients = step_of(store, precision="bf16", **values)
    assert logits.dtype == torch.bfloat16
    assert all(gradient.dtype == torch.float32 for gradient in gradients.values())
    assert not torch.equal(logits.float(), expected[0])
    # A hidden value near 0 may change its sign, and then its gradient.
    assert_near((logits, gradients), expected, 0.02, 0.1)


def test_bf16_drops_what_fp32_drops(store):
    expected, _ = step_of(store, dropout=0.5)
    logits, _ = step_of(store, dropout=0.5, precision="bf16")
    assert (logits.float() - expected).norm() <= 0.05 * expected.norm()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_tf32_is_off_unless_asked_for(precision):
    torch.backends.cuda.matmul.allow_tf32 = True
    set_precision(make_trial(precision=precision), CPU)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def test_evaluation_forbids_tf32_and_gives_it_back():
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with true_float32():
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def test_tf32_is_refused_on_a_cpu():
    with pytest.raises(UserError, match="write precision: fp32 or bf16"):
        set_precision(make_trial(precision="tf32"), CPU)


compiles = pytest.mark.skipif(
    precision.torch_version() < precision.OLDEST, reason="this torch is too old to compile with"
)


def test_compile_is_refused_with_an_old_torch(monkeypatch):
    monkeypatch.setattr(precision, "torch_version", lambda: (2, 5))
    with pytest.raises(UserError, match=r"asks for torch 2\.6 or later, .* write compile: false"):
        compile_model(torch.nn.Linear(1, 1), CPU)


@compiles
def test_compile_is_refused_without_a_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match="install it or write compile: false"):
        compile_model(torch.nn.Linear(1, 1), CPU)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="asks for no-such-compiler"):
        compile_model(torch.nn.Linear(1, 1), CPU)


@compiles
def test_on_a_gpu_a_c_compiler_is_asked_for(monkeypatch):
    """What launches Triton's kernels is C; images with gcc need not have g++."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="asks for a C compiler such as gcc, which is missing"):
        compile_model(torch.nn.Linear(1, 1), torch.device("cuda"))


@compiles
@pytest.mark.needs("g++")
@pytest.mark.slow  # the compiler takes a while
@pytest.mark.parametrize(
    "values", [{}, {"dropout": 0.5}, {"precision": "bf16"}, {"engine": "trimmed"}], ids=str
)
def test_compiled_is_the_same(store, values):
    values = {"sampling_workers": 0, **values}
    tolerances = (0.02, 0.1) if values.get("precision") == "bf16" else (1e-5, 1e-4)
    assert_near(step_of(store, compile=True, **values), step_of(store, **values), *tolerances)
