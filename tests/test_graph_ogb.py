"""OGB archives in their raw layout, made here and read back."""

import gzip
import importlib.util
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import build_graph
import numpy as np
import pytest
from sagebench.errors import UserError
from sagebench.graph.sources import ogb

NUM_NODES, NUM_EDGES, NUM_FEATURES = 60, 200, 7
SPLIT_FOLDER = {"ogbn-products": "sales_ranking", "ogbn-arxiv": "time", "ogbn-papers100M": "time"}
TOP = {"ogbn-products": "products", "ogbn-arxiv": "arxiv", "ogbn-papers100M": "papers100M-bin"}
MASTER = """\
,ogbn-products,ogbn-arxiv,ogbn-mag,ogbn-papers100M
num classes,47,40,349,172
task type,multiclass classification,multiclass classification,multiclass classification,\
multiclass classification
version,1,1,2,1
url,{url}/products.zip,{url}/arxiv.zip,{url}/mag.zip,{url}/papers100M-bin.zip
add_inverse_edge,True,False,False,False
split,sales_ranking,time,time,time
is hetero,False,False,True,False
binary,False,False,False,True
"""


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    """An ogb package that fails when it is imported; its table is laid out as in ogb 1.3.6."""
    folder = tmp_path / "packages" / "ogb"
    (folder / "nodeproppred").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('ogb must not be imported')")
    (folder / "nodeproppred" / "master.csv").write_text(MASTER.format(url="http://127.0.0.1:9"))
    monkeypatch.setitem(sys.modules, "ogb", None)
    del sys.modules["ogb"]
    monkeypatch.syspath_prepend(folder.parent)
    importlib.invalidate_caches()


def graph():
    random = np.random.default_rng(5)
    ids = random.permutation(NUM_NODES)
    return {
        "edges": random.integers(0, NUM_NODES, (NUM_EDGES, 2)),
        "features": random.standard_normal((NUM_NODES, NUM_FEATURES)).astype(np.float32),
        "labels": random.integers(0, 40, (NUM_NODES, 1)),
        "splits": {"train": ids[:30], "valid": ids[30:40], "test": ids[40:50]},
    }


def table(values):
    lines = "\n".join(",".join(str(value) for value in row) for row in np.atleast_2d(values))
    return gzip.compress((lines + "\n").encode())


def column(values):
    return table(np.asarray(values)[:, None])


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def members(name, binary=False):
    given = graph()
    split = f"split/{SPLIT_FOLDER[name]}"
    files = {
        "RELEASE_v1.txt": b"",
        "mapping/README.md": b"",
        **{f"{split}/{part}.csv.gz": column(ids) for part, ids in given["splits"].items()},
    }
    if binary:
        labels = given["labels"].astype(np.float32)
        labels[np.concatenate(list(given["splits"].values()))] += 0
        labels[np.setdiff1d(np.arange(NUM_NODES), np.concatenate([*given["splits"].values()]))] = (
            np.nan
        )
        files["raw/data.npz"] = npz(
            edge_index=given["edges"].T,
            node_feat=given["features"],
            node_year=given["labels"],
            num_nodes_list=[NUM_NODES],
            num_edges_list=[NUM_EDGES],
        )
        files["raw/node-label.npz"] = npz(node_label=labels)
    else:
        files |= {
            "raw/edge.csv.gz": table(given["edges"]),
            "raw/node-feat.csv.gz": table(given["features"]),
            "raw/node-label.csv.gz": table(given["labels"]),
            "raw/num-node-list.csv.gz": table([[NUM_NODES]]),
            "raw/num-edge-list.csv.gz": table([[NUM_EDGES]]),
        }
    return files


def archive(folder, name, files):
    path = folder / f"{TOP[name]}.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(f"{TOP[name]}/", b"")
        for member, content in files.items():
            opened.writestr(f"{TOP[name]}/{member}", content)
    return path


def built(folder, name, path, **keys):
    spec = {"name": name, "source": "ogb", "ogb_name": name, "archive": str(path), **keys}
    return build_graph.build(spec, folder / "store", folder / "downloads")


def pairs(store):
    target = np.repeat(np.arange(store.num_nodes), np.diff(store.colptr))
    return set(zip(store.row.tolist(), target.tolist(), strict=True))


@pytest.mark.parametrize(
    ("name", "binary", "undirected"),
    [
        ("ogbn-products", False, True),
        ("ogbn-arxiv", False, False),
        ("ogbn-papers100M", True, False),
    ],
)
def test_an_archive_is_read_back(tmp_path, name, binary, undirected):
    path = archive(tmp_path, name, members(name, binary))
    store = built(tmp_path, name, path)
    given = graph()
    expected = {(u, v) for u, v in given["edges"].tolist() if u != v}
    if undirected:
        expected |= {(v, u) for u, v in expected}
    assert pairs(store) == expected
    np.testing.assert_array_equal(store.features, given["features"])
    assert store.num_classes == {"ogbn-products": 47, "ogbn-arxiv": 40}.get(name, 172)
    for part, ids in given["splits"].items():
        np.testing.assert_array_equal(getattr(store, part), np.sort(ids))
        np.testing.assert_array_equal(store.labels[ids], given["labels"][ids, 0])
    provenance = store.manifest["provenance"]
    assert provenance["archive_bytes"] == path.stat().st_size and len(provenance["sha256"]) == 64
    digest = provenance["sha256"]
    assert built(tmp_path, name, path, sha256=digest).checksum == store.checksum


def test_arxiv_with_both_directions(tmp_path):
    store = built(
        tmp_path,
        "ogbn-arxiv",
        archive(tmp_path, "ogbn-arxiv", members("ogbn-arxiv")),
        undirected=True,
    )
    assert pairs(store) == {(v, u) for u, v in pairs(store)}


def with_file(member, content):
    return lambda files: {**files, member: content}


def without_file(member):
    return lambda files: {name: content for name, content in files.items() if name != member}


def lines_changed(member, change):
    def apply(files):
        lines = gzip.decompress(files[member]).decode().splitlines()
        return {**files, member: gzip.compress("\n".join(change(lines)).encode())}

    return apply


EDGES, FEATURES, LABELS = "raw/edge.csv.gz", "raw/node-feat.csv.gz", "raw/node-label.csv.gz"
TRAIN = "split/sales_ranking/train.csv.gz"
BAD = {
    "no edges": (without_file(EDGES), "has no products/raw/edge.csv.gz"),
    "no split": (without_file(TRAIN), "has no products/split"),
    "nodes missing": (
        lines_changed(FEATURES, lambda x: x[:-9]),
        r"y has shape \[60\]; give \[51\]",
    ),
    "labels too many": (lines_changed(LABELS, lambda x: [*x, "1"]), r"y has shape \[61\]"),
    "id out of range": (lines_changed(EDGES, lambda x: ["0,60", *x[1:]]), "is 60; x has 60 nodes"),
    "id beyond int32": (
        lines_changed(EDGES, lambda x: [f"0,{2**40}", *x[1:]]),
        "is 1099511627776; x has",
    ),
    "id as text": (lines_changed(EDGES, lambda x: ["0,a", *x[1:]]), "no table of numbers"),
    "three columns": (lines_changed(EDGES, lambda x: [f"{y},1" for y in x]), "3 columns, not 2"),
    "a short row": (lines_changed(FEATURES, lambda x: [*x[:-1], "1,2"]), "no table of numbers"),
    "NaN feature": (
        lines_changed(FEATURES, lambda x: [x[0], "nan" + x[1][x[1].index(",") :], *x[2:]]),
        r"x\[1, 0\] is nan",
    ),
    "empty feature": (
        lines_changed(FEATURES, lambda x: [x[0], x[1][x[1].index(",") :], *x[2:]]),
        r"x\[1, 0\] is nan",
    ),
    "label out of range": (lines_changed(LABELS, lambda x: ["47", *x[1:]]), r"y\[0\] is 47"),
    "no label": (lines_changed(LABELS, lambda x: ["", *x[1:]]), r"y has shape \[59\]"),
    "label as text": (lines_changed(LABELS, lambda x: ["book", *x[1:]]), "no table of numbers"),
    "overlap": (lines_changed(TRAIN, lambda x: [*x, str(graph()["splits"]["test"][0])]), "in test"),
    "empty split": (with_file(TRAIN, gzip.compress(b"")), "train"),
    "cut gzip": (lambda files: {**files, EDGES: files[EDGES][:-40]}, "damaged or cut short"),
    "not gzip": (with_file(FEATURES, b"1,2,3"), "damaged or cut short"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_archive_is_refused(tmp_path, name):
    change, message = BAD[name]
    path = archive(tmp_path, "ogbn-products", change(members("ogbn-products")))
    with pytest.raises(UserError, match=message) as caught:
        built(tmp_path, "ogbn-products", path)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["packages", "products.zip"]


@pytest.mark.parametrize("how", ["cut", "flipped", "no zip", "empty"])
def test_a_damaged_archive_is_refused(tmp_path, how):
    path = archive(tmp_path, "ogbn-products", members("ogbn-products"))
    content = bytearray(path.read_bytes())
    at = bytes(content).index(b"raw/edge.csv.gz") + 200
    content[at] ^= 255
    damaged = {"cut": content[:-100], "flipped": content, "no zip": b"<html>", "empty": b""}[how]
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="damaged or cut short"):
        built(tmp_path, "ogbn-products", path)
    assert not (tmp_path / "store").exists()


def test_other_bad_specs(tmp_path):
    with pytest.raises(UserError, match="no file"):
        built(tmp_path, "ogbn-products", tmp_path / "none.zip")
    path = archive(tmp_path, "ogbn-products", members("ogbn-products"))
    with pytest.raises(UserError, match="SHA-256"):
        built(tmp_path, "ogbn-products", path, sha256="0" * 64)
    for name in ("ogbn-mag", "products"):
        with pytest.raises(UserError, match=r"write .*ogbn-arxiv"):
            built(tmp_path, name, path)


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps ogb"):
        built(tmp_path, "ogbn-products", tmp_path / "none.zip")


def test_an_archive_is_fetched_once(tmp_path, monkeypatch):
    server = tmp_path / "server"
    server.mkdir()
    path = archive(server, "ogbn-arxiv", members("ogbn-arxiv"))
    asked = []

    def fake_fetch(url, to, sha256):
        asked.append(url)
        to.parent.mkdir(exist_ok=True)
        to.write_bytes(path.read_bytes())

    monkeypatch.setattr(ogb, "fetch", fake_fetch)
    spec = {"name": "arxiv", "source": "ogb", "ogb_name": "ogbn-arxiv"}
    store = build_graph.build(spec, tmp_path / "store", tmp_path / "downloads")
    assert asked == ["http://127.0.0.1:9/arxiv.zip"]
    assert store.manifest["provenance"]["url"] == asked[0]
    assert (tmp_path / "downloads" / "arxiv.zip").exists()


def test_the_installed_package_has_the_table():
    """In a process of its own, so that nothing of these tests is in the way."""
    code = (
        "import importlib.util, sys; from sagebench.graph.sources import ogb\n"
        "if importlib.util.find_spec('ogb') is None: sys.exit(7)\n"
        "print(ogb._metadata('ogbn-products')['url'], 'ogb' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(build_graph.__file__).parent,
    )
    if done.returncode == 7:
        pytest.skip("the ogb package is not installed")
    assert done.stdout.split() == [
        "http://snap.stanford.edu/ogb/data/nodeproppred/products.zip",
        "False",
    ]
