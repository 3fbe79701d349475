"""PubMed, a user's arrays, and the synthetic graph."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import build_graph
import describe_graph
import numpy as np
import pytest
from sagebench.errors import UserError
from sagebench.graph.checks import SPLITS
from sagebench.graph.sources import pubmed
from sagebench.graph.store import GraphStore

PUBLIC_SIZES = {"public": (60, 500, 1000), "large": (18_217, 500, 1000)}


def built(folder, **spec):
    return build_graph.build({"name": "graph", **spec}, folder / "store", folder / "downloads")


def sizes(store):
    return len(store.train), len(store.valid), len(store.test)


@pytest.mark.parametrize("split", PUBLIC_SIZES)
def test_pubmed(tmp_path, split):
    store = built(tmp_path, source="pubmed", split=split)
    assert sizes(store) == PUBLIC_SIZES[split]
    assert (store.num_nodes, store.num_edges) == (19_717, 2 * 44_324)
    assert (store.num_features, store.num_classes) == (500, 3)
    assert np.bincount(store.labels).tolist() == [4103, 7739, 7875]
    assert np.count_nonzero(store.features) == 988_031
    with np.load(pubmed.ARCHIVE) as archive:
        np.testing.assert_array_equal(store.test, np.sort(archive["test"]))
        start, stop = archive["x_indptr"][77:79]
        np.testing.assert_array_equal(
            store.features[77, archive["x_indices"][start:stop]], archive["x_values"][start:stop]
        )


def test_pubmeds_file_is_checked(tmp_path, monkeypatch):
    damaged = tmp_path / "pubmed.npz"
    damaged.write_bytes(pubmed.ARCHIVE.read_bytes()[:-1])
    monkeypatch.setattr(pubmed, "ARCHIVE", damaged)
    with pytest.raises(UserError, match="SHA-256"):
        built(tmp_path, source="pubmed", split="public")


def arrays():
    random = np.random.default_rng(3)
    ids = random.permutation(40)
    return {
        "edge_index": random.integers(0, 40, (2, 100)),
        "x": random.standard_normal((40, 5)),
        "y": random.permutation(40) % 4,
        "train": ids[:20],
        "valid": ids[20:25],
        "test": ids[25:38],
    }


def test_arrays_as_npz_folder_masks_and_other_dtypes_are_one_graph(tmp_path):
    given = arrays()
    np.savez_compressed(tmp_path / "graph.npz", **given)
    one = built(tmp_path, source="arrays", path=str(tmp_path / "graph.npz"))
    (tmp_path / "folder").mkdir()
    mask = np.zeros(40, bool)
    mask[given["train"]] = True
    others = {
        "edge_index": given["edge_index"].astype(np.uint16),
        "x": np.asfortranarray(given["x"].astype(np.float32)),
        "y": given["y"].astype(np.float64)[:, None],
        "train": mask,
    }
    for name, values in {**given, **others}.items():
        np.save(tmp_path / "folder" / f"{name}.npy", values)
    other = built(tmp_path, source="arrays", path=str(tmp_path / "folder"))
    assert one.checksum == other.checksum
    digest = hashlib.sha256((tmp_path / "graph.npz").read_bytes()).hexdigest()
    assert one.manifest["provenance"]["sha256"] == digest


def test_arrays_are_directed_unless_said_otherwise(tmp_path):
    given = {**arrays(), "edge_index": np.array([[0, 1], [1, 2]])}
    np.savez(tmp_path / "graph.npz", **given)
    path = str(tmp_path / "graph.npz")
    directed = built(tmp_path, source="arrays", path=path)
    assert directed.row.tolist() == [0, 1] and directed.colptr[:4].tolist() == [0, 0, 1, 2]
    undirected = built(tmp_path, source="arrays", path=path, undirected=True)
    assert undirected.row.tolist() == [1, 0, 2, 1]


def test_classes_without_nodes_and_nodes_without_labels(tmp_path):
    given = arrays()
    outside = np.setdiff1d(np.arange(40), np.concatenate([given[s] for s in SPLITS]))
    given["y"][outside] = -1
    np.savez(tmp_path / "graph.npz", **given)
    store = built(
        tmp_path,
        source="arrays",
        path=str(tmp_path / "graph.npz"),
        unlabelled=True,
        num_classes=9,
    )
    assert store.num_classes == 9 and (store.labels[outside] == -1).all()


def test_synthetic_resembles_products_at_a_hundredth(tmp_path):
    store = built(tmp_path, source="synthetic", scale=0.01)
    assert store.num_nodes == 24_490 and (store.num_features, store.num_classes) == (100, 47)
    assert sizes(store) == (1966, 393, 22_131)
    figures = describe_graph.describe(store)
    assert figures["homophily"] == pytest.approx(0.79, abs=0.03)
    assert figures["degree_median"] == pytest.approx(25, abs=2)
    assert figures["degree_mean"] == pytest.approx(46, rel=0.1)
    assert figures["degree_maximum"] > 20 * figures["degree_mean"]
    assert figures["isolated_nodes"] < 0.001 * store.num_nodes
    assert np.bincount(store.labels, minlength=47).min() > 0


def test_synthetic_is_symmetric_without_loops_and_repeats(tmp_path):
    store = built(tmp_path, source="synthetic", scale=0.001)
    target = np.repeat(np.arange(store.num_nodes), np.diff(store.colptr))
    edges = set(zip(store.row.tolist(), target.tolist(), strict=True))
    assert len(edges) == store.num_edges
    assert edges == {(v, u) for u, v in edges}
    assert not any(u == v for u, v in edges)


def test_synthetic_depends_on_scale_and_seed_alone(tmp_path):
    one = built(tmp_path, source="synthetic", scale=0.002).checksum
    assert built(tmp_path, source="synthetic", scale=0.002, seed=0).checksum == one
    assert built(tmp_path, source="synthetic", scale=0.002, seed=1).checksum != one
    assert built(tmp_path, source="synthetic", scale=0.0021).checksum != one


def test_neighbors_tell_more_of_the_synthetic_labels_than_the_node(tmp_path):
    """The nearest centroid, from a node's own features and from its neighbors' mean."""
    store = built(tmp_path, source="synthetic", scale=0.01)
    degrees = np.maximum(np.diff(store.colptr), 1)
    target = np.repeat(np.arange(store.num_nodes), np.diff(store.colptr))
    means = np.zeros_like(store.features)
    np.add.at(means, target, store.features[store.row])
    means /= degrees[:, None]
    accuracy = {}
    for name, features in (("own", store.features), ("neighbors", means)):
        centroids = np.stack([features[store.labels == label].mean(0) for label in range(47)])
        distance = (centroids**2).sum(1) - 2 * features @ centroids.T
        accuracy[name] = (distance.argmin(1) == store.labels).mean()
    assert accuracy["neighbors"] > 2 * accuracy["own"]
    assert accuracy["own"] > 1.5 / 47


RING = '''"""A ring, whose nodes have the class of their number."""

import numpy as np

SOURCE = "a ring, whose nodes have the class of their number"
OPTIONS = {
    "nodes": {"type": "whole", "low": 6, "example": 10, "default": 10, "help": "of the ring"}
}


def load(spec, downloads):
    ids = np.arange(spec["nodes"])
    return {
        "edge_index": np.stack([ids, np.roll(ids, 1)]),
        "features": np.eye(len(ids)),
        "labels": ids % 2,
        "splits": {"train": ids[:-4], "valid": ids[-4:-2], "test": ids[-2:]},
    }
'''


@pytest.mark.parametrize(
    ("nodes", "said"), [(6, "6 nodes, 6 directed edges"), (3, "dataset.nodes is 3: write a whole")]
)
def test_a_new_source_is_one_file(tmp_path, nodes, said):
    (tmp_path / "ring.py").write_text(RING)
    spec = json.dumps({"name": "mine", "source": "ring", "nodes": nodes})
    command = [sys.executable, build_graph.__file__, "--spec", spec, "--out", tmp_path / "s"]
    environment = {**os.environ, "SAGEBENCH_PLUGINS": str(tmp_path / "ring.py")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert said in done.stdout + done.stderr


def test_describe_counts_by_hand(tmp_path):
    """A path 0-1-2-3 and a lonely 4; labels a a b b b."""
    np.savez(
        tmp_path / "path.npz",
        edge_index=[[0, 1, 2], [1, 2, 3]],
        x=np.ones((5, 1)),
        y=[0, 0, 1, 1, 1],
        train=[0],
        valid=[3],
        test=[4],
    )
    store = built(tmp_path, source="arrays", path=str(tmp_path / "path.npz"), undirected=True)
    figures = describe_graph.describe(store)
    assert figures["directed_edges"] == 6 and figures["isolated_nodes"] == 1
    assert figures["homophily"] == pytest.approx(4 / 6, abs=1e-4)
    assert figures["largest_class_share"] == 0.6


def test_the_scripts_print_what_they_did(tmp_path, capsys, monkeypatch):
    out = tmp_path / "tiny"
    spec = '{"name": "tiny", "source": "synthetic", "scale": 0.001}'
    monkeypatch.setattr("sys.argv", ["build_graph.py", "--spec", spec, "--out", str(out)])
    build_graph.main()
    assert "2,449 nodes" in capsys.readouterr().out
    arguments = ["--store", str(out), "--json", str(tmp_path / "tiny.json"), "--verify"]
    monkeypatch.setattr("sys.argv", ["describe_graph.py", *arguments])
    describe_graph.main()
    assert GraphStore.open(out).checksum in capsys.readouterr().out
    assert '"nodes": 2449' in Path(tmp_path / "tiny.json").read_text()
