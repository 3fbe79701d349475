"""Bad data sets: one sentence that says what is wrong, and no half store."""

import json
import subprocess
import sys
from pathlib import Path

import build_graph
import numpy as np
import pytest
from sagebench.errors import UserError
from sagebench.graph.store import GraphStore

NUM_NODES = 12


def good():
    return {
        "edge_index": np.array([[0, 1, 2, 3, 10], [1, 2, 3, 4, 11]]),
        "x": np.ones((NUM_NODES, 3), np.float32),
        "y": np.arange(NUM_NODES) % 3,
        "train": np.arange(6),
        "valid": np.arange(6, 9),
        "test": np.arange(9, 12),
    }


def array(name, value):
    """A bad data set: the good one with another array."""
    return lambda folder: save(folder, {**good(), name: np.asarray(value)})


def changed(name, index, value, dtype=None):
    """A bad data set: the good one with another value."""

    def build(folder):
        arrays = good()
        arrays[name] = arrays[name].astype(dtype or arrays[name].dtype)
        arrays[name][index] = value
        return save(folder, arrays)

    return build


def without(name):
    return lambda folder: save(folder, {key: a for key, a in good().items() if key != name})


def save(folder, arrays):
    np.savez(folder / "graph.npz", **arrays)
    return {"path": str(folder / "graph.npz")}


def spec(**keys):
    return lambda folder: {**save(folder, good()), **keys}


def bytes_changed(change):
    def build(folder):
        keys = save(folder, good())
        path = Path(keys["path"])
        path.write_bytes(change(path.read_bytes()))
        return keys

    return build


def flip_a_stored_value(content):
    at = content.index(good()["x"].tobytes())
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


def folder_of_npy(skip=None, pickled=None, cut=None):
    def build(folder):
        (folder / "arrays").mkdir()
        for name, values in good().items():
            if name != skip:
                np.save(
                    folder / "arrays" / f"{name}.npy",
                    values.astype(object) if name == pickled else values,
                )
        if cut:
            path = folder / "arrays" / f"{cut}.npy"
            path.write_bytes(path.read_bytes()[:-5])
        return {"path": str(folder / "arrays")}

    return build


BAD = {
    # the file
    "no such file": (lambda folder: {"path": str(folder / "none.npz")}, r"none\.npz is no file"),
    "no path": (lambda folder: {}, "path is missing"),
    "truncated zip": (bytes_changed(lambda b: b[: len(b) // 2]), "no whole .npz"),
    "a flipped byte": (bytes_changed(flip_a_stored_value), "no whole .npz.*CRC"),
    "not a zip": (bytes_changed(lambda b: b"edges"), "no whole .npz"),
    "empty file": (bytes_changed(lambda b: b""), "no whole .npz"),
    "wrong hash": (spec(sha256="ab" * 32), "SHA-256"),
    "pickled npz": (array("y", np.array([{}] * NUM_NODES, object)), r"y\.npy holds Python objects"),
    "missing array": (without("y"), "has no y; it has edge_index"),
    "missing split": (without("valid"), "has no valid"),
    "folder without x": (folder_of_npy(skip="x"), "has no x"),
    "folder with a pickle": (folder_of_npy(pickled="train"), "train.npy holds Python objects"),
    "folder with a cut file": (folder_of_npy(cut="x"), "x.npy cannot be read"),
    # the spec
    "unknown key": (spec(undirectd=True), "dataset.undirectd .* write undirected"),
    "flag as text": (spec(undirected="yes"), "write true or false"),
    "bad num_classes": (spec(num_classes=0), "num_classes is 0: write"),
    "unknown source": (lambda folder: {"source": "dgl"}, "source is 'dgl': write arrays or debian"),
    "unknown split": (lambda folder: {"source": "pubmed", "split": "big"}, "public or large"),
    "scale above 1": (lambda folder: {"source": "synthetic", "scale": 2}, "scale is 2: write"),
    "scale as text": (lambda folder: {"source": "synthetic", "scale": "1"}, "scale is '1': write"),
    "scale too small": (lambda folder: {"source": "synthetic", "scale": 1e-6}, "at least"),
    "negative seed": (lambda folder: {"source": "synthetic", "seed": -1}, "seed is -1: write"),
    # edges
    "id too large": (changed("edge_index", (1, 2), NUM_NODES), r"edge_index\[1, 2\] is 12"),
    "negative id": (changed("edge_index", (0, 3), -1), r"edge_index\[0, 3\] is -1"),
    "edges as [E, 2]": (array("edge_index", np.zeros((5, 2), int)), r"shape \[5, 2\]"),
    "edges flat": (array("edge_index", [0, 1]), r"edge_index has shape \[2\]"),
    "ids as floats": (array("edge_index", np.ones((2, 3))), "edge_index has dtype float64"),
    "ids as text": (array("edge_index", [["a"], ["b"]]), "edge_index has dtype"),
    # features
    "NaN feature": (changed("x", (4, 1), np.nan), r"x\[4, 1\] is nan"),
    "infinite feature": (changed("x", (0, 2), -np.inf), r"x\[0, 2\] is -inf"),
    "beyond float32": (changed("x", (1, 0), 1e300, np.float64), r"x\[1, 0\] is inf; give"),
    "complex features": (array("x", np.ones((NUM_NODES, 2), complex)), "x has dtype complex"),
    "features as text": (array("x", np.full((NUM_NODES, 2), "0.1")), "x has dtype"),
    "flat features": (array("x", np.ones(NUM_NODES)), r"x has shape \[12\]"),
    "no features": (array("x", np.ones((NUM_NODES, 0))), r"x has shape \[12, 0\]"),
    "no nodes": (array("x", np.ones((0, 3))), r"x has shape \[0, 3\]"),
    # labels
    "negative label": (changed("y", 5, -1), r"y\[5\] is -1"),
    "NaN label": (changed("y", 5, np.nan, float), r"y\[5\] is nan"),
    "half a label": (changed("y", 5, 0.5, float), r"y\[5\] is 0\.5"),
    "label far out": (changed("y", 5, 10**9), "up to 1000000000 but none of class 3"),
    "label with a gap": (changed("y", 5, 9), "none of class 3"),
    "label above num_classes": (
        lambda folder: {**changed("y", 5, 9)(folder), "num_classes": 5},
        r"y\[5\] is 9.*num_classes: 5",
    ),
    "too few labels": (array("y", np.zeros(NUM_NODES - 1, int)), r"y has shape \[11\]"),
    "one-hot labels": (array("y", np.zeros((NUM_NODES, 3), int)), r"y has shape \[12, 3\]"),
    "one class": (array("y", np.zeros(NUM_NODES, int)), "one class only"),
    "labels as text": (array("y", ["a"] * NUM_NODES), "y has dtype"),
    "train node unlabelled": (
        lambda folder: {**changed("y", 5, -1)(folder), "unlabelled": True},
        "node 5 is in train but has no label",
    ),
    # splits
    "overlap": (array("test", [2, 9]), "node 2 is in train and in test"),
    "repeat": (array("train", [1, 2, 1]), "train has node 1 more than once"),
    "empty split": (array("valid", np.empty(0, int)), "valid is empty"),
    "empty mask": (array("valid", np.zeros(NUM_NODES, bool)), "valid is empty"),
    "short mask": (array("valid", np.ones(3, bool)), "valid is a mask of 3 values for 12"),
    "split id too large": (array("test", [9, 40]), r"test\[1\] is 40"),
    "split id negative": (array("test", [-3]), r"test\[0\] is -3"),
    "split as floats": (array("test", [9.0]), "test has dtype float64"),
    "split as a table": (array("test", [[9], [10]]), r"test has shape \[2, 1\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_refused_in_one_sentence_and_leaves_no_store(tmp_path, name):
    build, message = BAD[name]
    data = tmp_path / "data"
    data.mkdir()
    bad = {"name": "mine", "source": "arrays", **build(data)}
    out = tmp_path / "stores" / "mine"
    with pytest.raises(UserError, match=message) as caught:
        build_graph.build(bad, out, tmp_path / "downloads")
    assert str(caught.value).startswith("data set mine: ") and "\n" not in str(caught.value)
    assert not out.parent.exists() or not list(out.parent.iterdir())
    # A store that was there before is as it was.
    build_graph.build({"name": "mine", "source": "arrays", **save(data, good())}, out, tmp_path)
    checksum = GraphStore.open(out).checksum
    with pytest.raises(UserError):
        build_graph.build(
            {"name": "mine", "source": "arrays", **build_again(build, tmp_path)},
            out,
            tmp_path / "downloads",
        )
    assert GraphStore.open(out, verify=True).checksum == checksum
    assert [path.name for path in out.parent.iterdir()] == ["mine"]


def build_again(build, folder):
    again = folder / "again"
    again.mkdir()
    return build(again)


def test_the_script_ends_with_one_line_and_code_2(tmp_path):
    bad = {"name": "mine", "source": "arrays", **array("valid", [1])(tmp_path)}
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(bad))
    done = subprocess.run(
        [sys.executable, build_graph.__file__, "--spec", path, "--out", tmp_path / "mine"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: data set mine: node 1 is in train and in valid (1 such nodes); give splits that "
        "do not overlap"
    ]
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("text", ["{", "none.json", "[]"])
def test_a_spec_that_is_none(text):
    with pytest.raises(UserError, match="--spec"):
        build_graph.read_spec(text)
