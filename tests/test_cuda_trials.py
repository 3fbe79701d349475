"""Whole trials on a GPU in processes of their own, and two ranks that share one."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from test_training_ranks import assert_same_gradients, step_gradients
from trial_runs import Run
from trials import make_trial, tiny_store

pytestmark = pytest.mark.cuda


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "tiny"
    tiny_store(folder)
    return folder


@pytest.fixture(scope="module")
def hub_store(tmp_path_factory) -> Path:
    """Training node 0 has 200,000 neighbors, so that its micro-batch alone is large."""
    folder = tmp_path_factory.mktemp("store") / "hub"
    tiny_store(folder, nodes=200_001, hub=200_000)
    return folder


@pytest.mark.parametrize("engine", ["blocks", "reference"])
def test_a_trial_tells_everything(tmp_path, store, engine):
    trial = make_trial(
        engine=engine, device="cuda", memory_limit_gib=1.0, profile_steps=3, sampled_test_nodes=50
    )
    run = Run(tmp_path / "t", trial, store)
    finished = run.finish()
    assert finished.returncode == 0, finished.stderr
    outcome, rank = run.outcome, run.outcome["ranks"][0]
    assert outcome["status"] == "completed"
    memory = outcome["memory"]
    assert 0 < memory["peak_allocated_bytes"] <= memory["peak_reserved_bytes"] <= 1 << 30
    assert rank["num_alloc_retries"] == rank["num_ooms"] == 0
    assert rank["power_limit_w"] > 0 and rank["at_end"]["sm_clock_mhz"] > 0
    assert outcome["provenance"]["versions"]["cudnn"] and outcome["provenance"]["versions"]["nccl"]
    assert outcome["accuracy"]["test_sampled_nodes"] == 50
    assert "micro-step" in (run.home / "profile.txt").read_text()
    assert 0 < (run.home / "trace.json.gz").stat().st_size < 15 << 20


def test_a_cap_of_memory_is_a_typed_end(tmp_path, hub_store):
    trial = make_trial(fanout=[-1, 1, 1], hidden_channels=2048, memory_limit_gib=0.5, device="cuda")
    run = Run(tmp_path / "t", trial, hub_store)
    finished = run.finish()
    assert finished.returncode == 0, finished.stderr
    assert run.outcome["status"] == "out_of_memory"
    assert run.outcome["reason"]["limit"] == {
        "kind": "memory_limit", "value": 0.5, "unit": "GiB"
    }  # fmt: skip


@pytest.mark.parametrize("engine", ["blocks", "reference"])
def test_two_ranks_on_one_gpu_are_one_that_accumulates(store, engine):
    """DDP's device path, no_sync, and a rank that the last step leaves without seed nodes."""
    values = {"dropout": 0.0, "batch_size": 10, "engine": engine, "sampling_workers": 0}
    alone = run_ranks(1, step_gradients, {**values, "accumulation": 4}, str(store), "cuda:0")[0]
    values |= {"accumulation": 2, "ranks": 2}
    for rank in run_ranks(2, step_gradients, values, str(store), "cuda:0"):
        assert_same_gradients(rank, alone)


def whole_rank(place, values: dict, folder: str, directory: str) -> int:
    """A rank's exit code, of ranks that share a GPU."""
    from sagebench.training import rank, setup
    from sagebench.training.distributed import Communicator, RankEnvironment

    rank.choose_device = lambda trial, place: torch.device("cuda", 0)
    setup.Communicator = partial(Communicator, backend="gloo")
    RankEnvironment.read = classmethod(lambda cls: place)
    return rank.run_rank(make_trial(**values), Path(folder), Path(directory))


def test_a_trial_of_two_ranks_on_one_gpu(tmp_path, store):
    values = {"ranks": 2, "device": "cuda", "phase_window_steps": 4, "profile_steps": 2}
    assert run_ranks(2, whole_rank, values, str(store), str(tmp_path)) == [0, 0]
    measured = json.loads((tmp_path / "measured.json").read_text())
    assert measured["complete"]
    assert measured["phases"]["synchronisation_s"] > 0
    assert [rank["peak_reserved_bytes"] > 0 for rank in measured["ranks"]] == [True, True]


def test_a_rank_without_memory_says_so(tmp_path, hub_store):
    """Its peer is left in a collective, perhaps for ever; the launcher would end it, too."""
    values = {
        "ranks": 2, "device": "cuda", "fanout": [-1, 1, 1], "hidden_channels": 2048,
        "memory_limit_gib": 0.5,
    }  # fmt: skip
    codes = run_ranks(2, whole_rank, values, str(hub_store), str(tmp_path), killed=1)
    records = [json.loads(path.read_text()) for path in tmp_path.glob("rank-*.json")]
    assert [code for code in codes if code is not None] == [86]
    assert [record["status"] for record in records] == ["out_of_memory"]
    assert records[0]["reason"]["limit"]["kind"] == "memory_limit"
