"""What a preflight tries on a node, and how much of it a study wants."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from configurations import GOOD, study_of
from sagebench.engines.reference import Engine
from sagebench.files import write_json
from sagebench.grid.freeze import manifest_path
from sagebench.preflight import rank
from sagebench.preflight.job import batch_bytes, needs
from sagebench.sampling.order import SeedOrder
from trials import make_trial, tiny_store

PRODUCTS = {"num_nodes": 2_449_029, "num_edges": 123_718_024, "num_features": 100}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("store") / "tiny")


@pytest.mark.parametrize("fanout", [[2, 1, 1], [4, 3, 2], [-1, -1, -1], [3, 0, 0]])
def test_a_batch_of_pygs_loader_takes_no_more_than_said(store, fanout):
    trial = make_trial(engine="reference", fanout=fanout, sampling_workers=0)
    engine = Engine(trial, store, torch.device("cpu"))
    batch = next(iter(SeedOrder(store.train, 16, 1, 1, 0).micro_batches(1, 0)))
    _, loader, output = engine.sample(batch)
    data = loader.filter_fn(output)
    tensors = [value for value in data.to_dict().values() if isinstance(value, torch.Tensor)]
    taken = sum(tensor.nbytes for tensor in tensors)
    said = batch_bytes(trial, store.manifest)
    assert taken <= said + 16 * len(batch.seeds)  # the seeds' own numbers go with it
    assert said < 1.5 * taken


def test_a_study_wants_what_its_largest_loader_may_fill(tmp_path):
    experiment = {
        "axis": "batch_size",
        "list": [
            {"engine": "reference", "sampling_workers": 2},
            {"engine": "reference", "sampling_workers": 0, "ranks": 8},
            {"engine": "reference", "sampling_workers": 1, "ranks": 3},
            {"engine": "blocks", "sampling_workers": 9, "compile": True},
        ],
    }
    study = study_of({**GOOD, "results": str(tmp_path), "experiments": {"one": experiment}})
    nothing_built = needs(study)
    assert nothing_built == {"compiles": True, "shared_memory_bytes": 0}
    (name,) = study.stores
    write_json(manifest_path(study.results, name), PRODUCTS)
    loader = next(r.trial for r in study.requests.values() if r.trial.ranks == 3)
    wanted = needs(study)["shared_memory_bytes"]
    assert wanted == 9 * batch_bytes(loader, PRODUCTS)


def test_a_folder_for_shared_memory_is_written_to(tmp_path):
    assert rank.shared_memory(tmp_path)["free_bytes"] > 0
    assert rank.shared_memory(tmp_path / "gone")["error"] == "No such file or directory"


def test_nothing_is_compiled_unless_a_trial_asks():
    assert rank.machine("cpu", compiles=False)["compiler"] is None


@pytest.fixture
def own_compiler(tmp_path, monkeypatch):
    """own_compiler(script): the C compiler is this shell script."""

    def make(script: str) -> Path:
        path = tmp_path / "own cc"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("CC", str(path))
        return path

    return make


def test_a_compiler_that_is_not_there(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert rank.compiler_error("C") == "there is none"


def test_a_compiler_without_pythons_headers(own_compiler):
    said = "nothing.c:1:10: fatal error: Python.h: No such file or directory"
    path = own_compiler(f"echo '{said}' >&2; exit 1")
    assert rank.compiler_error("C") == f"{path}: {said}"


@pytest.mark.skipif(
    not (shutil.which("gcc") and Path(sysconfig.get_paths()["include"], "Python.h").exists()),
    reason="gcc and Python's headers are not installed",
)
def test_a_compiler_that_works(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    assert rank.compiler_error("C") is None
