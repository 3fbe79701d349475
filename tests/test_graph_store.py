"""The graph store: written atomically, mapped, and the same for the same graph."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sagebench.errors import UserError
from sagebench.graph import store as store_module
from sagebench.graph.store import ARRAYS, GraphStore, write_store

SCRIPTS = Path(store_module.__file__).parents[2]


def graph(seed=0, num_nodes=30):
    random = np.random.default_rng(seed)
    ids = random.permutation(num_nodes)
    return {
        "edge_index": random.integers(0, num_nodes, (2, 90)),
        "undirected": True,
        "features": random.standard_normal((num_nodes, 4)),
        "labels": np.arange(num_nodes) % 3,
        "splits": {"train": ids[:15], "valid": ids[15:20], "test": ids[20:]},
        "source": {"name": "tiny", "source": "arrays"},
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_what_is_opened(tmp_path):
    given = graph()
    write_store(tmp_path / "tiny", **given)
    store = GraphStore.open(tmp_path / "tiny", verify=True)
    assert names(tmp_path) == ["tiny"]
    assert names(store.path) == sorted(["manifest.json", *(f"{name}.npy" for name in ARRAYS)])
    assert (store.num_nodes, store.num_features, store.num_classes) == (30, 4, 3)
    assert store.num_edges == len(store.row) == store.colptr[-1]
    assert store.features.dtype == np.float32 and store.row.dtype == np.int32
    assert {store.colptr.dtype, store.labels.dtype, store.train.dtype} == {np.dtype(np.int64)}
    np.testing.assert_array_equal(store.features, given["features"].astype(np.float32))
    np.testing.assert_array_equal(store.train, np.sort(given["splits"]["train"]))
    assert store.manifest["source"] == given["source"]
    assert store.manifest["arrays"]["features"]["shape"] == [30, 4]


def test_arrays_are_mapped_and_cannot_be_written(tmp_path):
    store = write_store(tmp_path / "tiny", **graph())
    for name in ARRAYS:
        array = getattr(store, name)
        assert isinstance(array, np.memmap) and not array.flags.writeable


def test_a_store_is_sent_to_another_process_by_its_path(tmp_path):
    store = write_store(tmp_path / "tiny", **graph())
    sent = pickle.dumps(store)
    assert len(sent) < 1000
    assert isinstance(pickle.loads(sent).features, np.memmap)


def test_the_checksum_is_that_of_the_graph(tmp_path):
    one = write_store(tmp_path / "one", **graph())
    again = write_store(tmp_path / "again", **{**graph(), "source": {"name": "other"}})
    assert one.checksum == again.checksum
    assert one.checksum != write_store(tmp_path / "other", **graph(seed=1)).checksum
    moved = graph()
    moved["splits"]["train"], moved["splits"]["test"] = (
        moved["splits"]["test"],
        moved["splits"]["train"],
    )
    assert one.checksum != write_store(tmp_path / "moved", **moved).checksum


def test_a_graph_without_edges_is_a_graph(tmp_path):
    given = {**graph(), "edge_index": np.empty((2, 0), np.int64)}
    store = write_store(tmp_path / "tiny", **given)
    assert store.num_edges == 0 and not store.colptr.any()


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_build_changes_nothing(tmp_path, monkeypatch, array, existing, error):
    folder = tmp_path / "tiny"
    if existing:
        checksum = write_store(folder, **graph(seed=1)).checksum
    save = store_module._save

    def broken(path, values):
        save(path, values[: len(values) // 2])
        if path.stem == array:
            raise error

    monkeypatch.setattr(store_module, "_save", broken)
    with pytest.raises(type(error)):
        write_store(folder, **graph())
    assert names(tmp_path) == (["tiny"] if existing else [])
    if existing:
        assert GraphStore.open(folder, verify=True).checksum == checksum


def test_a_store_is_replaced_while_it_is_read(tmp_path):
    old = write_store(tmp_path / "tiny", **graph(seed=1))
    values = np.array(old.features)
    new = write_store(tmp_path / "tiny", **graph())
    np.testing.assert_array_equal(old.features, values)
    assert GraphStore.open(tmp_path / "tiny").checksum == new.checksum != old.checksum
    assert names(tmp_path) == ["tiny"]


def test_an_empty_folder_is_no_obstacle_and_foreign_files_are(tmp_path):
    (tmp_path / "tiny").mkdir()
    write_store(tmp_path / "tiny", **graph())
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("")
    with pytest.raises(UserError, match=r"chapter\.tex"):
        write_store(tmp_path / "thesis", **graph())
    assert names(tmp_path) == ["thesis", "tiny"]


SLOW_BUILD = """
import sys, time
spec = '{"name": "pubmed", "source": "pubmed", "split": "large"}'
sys.argv = ["build_graph.py", "--spec", spec, "--out", sys.argv[1]]
import build_graph
from sagebench.graph import store
save = store._save
def slow(path, array):
    save(path, array)
    print("saved", flush=True)
    time.sleep(60)
store._save = slow
build_graph.main()
"""


def killed_build(folder, number):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, str(folder)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
    )
    with process:
        assert process.stdout.readline() == b"saved\n"
        if number is None:
            yield process
        process.send_signal(number or signal.SIGKILL)
        process.wait(10)


def test_a_terminated_build_leaves_nothing(tmp_path):
    list(killed_build(tmp_path / "pubmed", signal.SIGTERM))
    assert names(tmp_path) == []


def test_what_a_killed_build_left_is_removed_but_not_what_a_running_one_has(tmp_path):
    for _ in killed_build(tmp_path / "tiny", None):
        write_store(tmp_path / "tiny", **graph())
        assert len(names(tmp_path)) == 2
    assert len(names(tmp_path)) == 2
    time.sleep(0.05)
    write_store(tmp_path / "tiny", **graph())
    assert names(tmp_path) == ["tiny"]


def damage(path, how):
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    elif how == "other shape":
        np.save(path, np.zeros((2, 2), np.float32))
    else:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["missing", "cut", "other shape", "flipped bit"])
@pytest.mark.parametrize("name", ["features", "row", "train"])
def test_a_damaged_store_says_so(tmp_path, how, name):
    write_store(tmp_path / "tiny", **graph())
    damage(tmp_path / "tiny" / f"{name}.npy", how)
    with pytest.raises(UserError, match=f"{name}.*build the store again"):
        GraphStore.open(tmp_path / "tiny", verify=True)


def test_what_is_no_store_says_so(tmp_path):
    with pytest.raises(UserError, match=r"build_graph\.py"):
        GraphStore.open(tmp_path)
    store = write_store(tmp_path / "tiny", **graph())
    manifest = store.path / "manifest.json"
    manifest.write_text(json.dumps({**store.manifest, "format": 99}))
    with pytest.raises(UserError, match="format 99"):
        GraphStore.open(store.path)
    manifest.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        GraphStore.open(store.path)
