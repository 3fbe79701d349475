"""The choice between the kernels and the plain path, and what a step on a GPU launches."""

import pytest
import torch
from sagebench.estimate.sample import record_sample
from sagebench.kernels import choice
from sagebench.kernels.choice import choose_kernels, kernels_chosen
from sagebench.operations import Cost, runs_kernels

triton = pytest.importorskip("triton", exc_type=ImportError)


@pytest.fixture(autouse=True)
def chosen_before():
    with kernels_chosen("plain", "cpu"):
        yield


def test_kernels_that_run_are_named():
    assert choose_kernels("auto", "meta") == f"triton {triton.__version__}"
    assert runs_kernels(torch.device("meta"))
    assert not runs_kernels(torch.device("cpu"))


def test_plain_stays_plain():
    choose_kernels("auto", "meta")
    assert choose_kernels("plain", "meta") == "plain"
    assert not runs_kernels(torch.device("meta"))


@pytest.mark.parametrize(
    ("module", "name", "value", "why"),
    [
        (torch, "__version__", "2.5.1+cu124", "torch 2.5.1+cu124 is older than 2.6"),
        (triton, "__version__", "3.1.0", "triton 3.1.0 is older than 3.2"),
    ],
)
def test_what_lacks_is_said(monkeypatch, module, name, value, why):
    monkeypatch.setattr(module, name, value)
    assert choose_kernels("auto", "meta") == f"plain: {why}"
    assert not runs_kernels(torch.device("meta"))


def test_a_broken_triton_is_none(monkeypatch):
    def broken(_):
        raise OSError("libtriton.so: cannot open")

    monkeypatch.setattr(choice, "import_module", broken)
    why = "no triton (OSError('libtriton.so: cannot open'))"
    assert choose_kernels("auto", "meta") == f"plain: {why}"


def test_a_cpu_has_none():
    assert choose_kernels("auto", "cpu") == "plain: no GPU"


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton starts on a GPU")
def test_where_triton_does_not_start_the_plain_path_runs():
    assert choose_kernels("auto", "cuda").startswith("plain: triton does not start: ")
    assert not runs_kernels(torch.device("cuda"))


def test_a_recorded_sample_is_of_its_sizes():
    """The kernels draw a hop at a time: launches do not depend on the sizes, bytes do."""
    sizes = [100, 1_000, 8_000], [1_100, 9_900]
    small, large = (
        record_sample([11, 10], 20_000, *([times * n for n in per_hop] for per_hop in sizes),
                      relabel_last=True).costs
        for times in (1, 2)
    )  # fmt: skip
    assert Cost.sum(small.values()).launches == Cost.sum(large.values()).launches > 10
    assert small["sample_expand"].launches == 2
    assert 1.5 < large["cat"].moved_bytes / small["cat"].moved_bytes < 2.1
    assert record_sample([-1, 10], 20_000, *sizes, relabel_last=True) is None
