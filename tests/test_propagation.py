"""Label propagation and Correct and Smooth are what dense matrices give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sagebench.graph.store import GraphStore
from sagebench.graph.unseen import derive_unseen
from sagebench.methods import label_propagation, propagation
from sagebench.methods.propagation import correct_and_smooth, one_hot_labels
from sagebench.sampling.blocks import torch_view
from sagebench.training.distributed import Communicator, Progress, RankEnvironment
from torch_geometric.nn import CorrectAndSmooth
from trials import DATASET, make_trial, tiny_store

CPU = torch.device("cpu")
SPECS = {
    setting: {**DATASET, "setting": setting, "unseen": 0.4, "split_seed": 1}
    for setting in ("transductive", "inductive")
}


@pytest.fixture(scope="module", params=SPECS)
def store(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    base = tiny_store(folder / "tiny", nodes=700, train=100)
    return derive_unseen(folder / "unseen", base, SPECS[request.param])


def normalised(store: GraphStore) -> np.ndarray:
    """S = D^-1/2 A D^-1/2 of the graph, dense."""
    matrix = np.zeros((store.num_nodes, store.num_nodes))
    column = np.repeat(np.arange(store.num_nodes), np.diff(store.colptr))
    matrix[column, store.row] = 1
    degrees = matrix.sum(1)
    scale = np.where(degrees, 1 / np.sqrt(np.maximum(degrees, 1)), 0)
    return scale[:, None] * matrix * scale


def rounds(matrix, start, alpha, values, moving, low=-np.inf):
    for _ in range(propagation.ROUNDS):
        new = np.clip(alpha * matrix @ values + (1 - alpha) * start, low, 1)
        values = np.where(moving[:, None], new, values)
    return values


def dense_smoothed(store, probabilities):
    """Correct and Smooth in NumPy: in the training graph, then the unseen rows in the whole one."""
    classes = np.eye(store.num_classes)[store.labels]
    errors = np.zeros_like(probabilities)
    errors[store.train] = classes[store.train] - probabilities[store.train]
    size = np.abs(errors[store.train]).sum(1).mean()
    unseen = np.isin(np.arange(store.num_nodes), store.unseen)
    steps = [(store, np.ones_like(unseen))]
    if store.whole is not store:
        steps.append((store.whole, unseen))
    found, smooth = errors, None
    for of, moving in steps:
        matrix = normalised(of)
        found = rounds(matrix, errors, 0.8, found, moving, low=-1)
        with np.errstate(divide="ignore"):
            scale = size / np.abs(found).sum(1, keepdims=True)
        scale[scale > 1000] = 1
        corrected = probabilities + scale * found
        corrected[store.train] = classes[store.train]
        before = corrected if smooth is None else smooth
        smooth = rounds(matrix, corrected, 0.8, before, moving, low=0)
    return smooth


def test_correct_and_smooth_is_that_of_dense_matrices(store):
    torch.manual_seed(0)
    probabilities = torch.randn(store.num_nodes, store.num_classes).softmax(1)
    found = correct_and_smooth(store, probabilities)
    expected = dense_smoothed(store, probabilities.double().numpy())
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_correct_and_smooth_is_pygs(store):
    torch.manual_seed(0)
    probabilities = torch.randn(store.num_nodes, store.num_classes).softmax(1)
    column = np.repeat(np.arange(store.num_nodes), np.diff(store.colptr))
    edge_index = torch.from_numpy(np.stack([store.row.astype(np.int64), column]))
    peer = CorrectAndSmooth(50, 0.8, 50, 0.8)
    train = torch.from_numpy(np.array(store.train))
    labels = torch.from_numpy(np.array(store.labels))[train]
    expected = peer.smooth(
        peer.correct(probabilities, labels, train, edge_index), labels, train, edge_index
    )
    outside = store.unseen if store.whole_row is not None else []
    seen = np.setdiff1d(np.arange(store.num_nodes), outside)
    found = correct_and_smooth(store, probabilities)
    torch.testing.assert_close(found[seen], expected[seen], rtol=1e-4, atol=1e-5)


def test_without_an_error_to_correct_nothing_is_undefined(store):
    labels = torch_view(store.labels).long()
    certain = torch.nn.functional.one_hot(labels, store.num_classes).float()
    assert correct_and_smooth(store, certain).isfinite().all()


def propagated(store):
    communicator = Communicator(RankEnvironment(), CPU)
    trial = make_trial(method="label_propagation", options={"alpha": 0.9})
    return label_propagation.run(trial, store, communicator, Progress(False)).accuracy


def test_label_propagation_is_that_of_dense_matrices(store):
    start = one_hot_labels(store, CPU).double().numpy()
    matrix, values, found = normalised(store), start, []
    for _ in range(propagation.ROUNDS):
        values = 0.9 * matrix @ values + 0.1 * start
        found.append((values[store.valid].argmax(1) == store.labels[store.valid]).mean())
    best = int(np.argmax(found)) + 1
    values = start
    for _ in range(best):
        values = 0.9 * matrix @ values + 0.1 * start
    if store.whole is not store:
        moving = np.isin(np.arange(store.num_nodes), store.unseen)
        values = rounds(normalised(store.whole), start, 0.9, values, moving)
    hits = values.argmax(1) == store.labels
    accuracy = propagated(store)
    assert accuracy.best_epoch == best
    assert accuracy.best_validation == pytest.approx(max(found))
    assert accuracy.test_full == pytest.approx(hits[store.test].mean())
    assert accuracy.unseen == pytest.approx(hits[store.unseen].mean())


def test_the_known_nodes_do_not_see_the_unseen(tmp_path):
    """What is predicted of the unseen nodes changes their own values alone."""
    base = tiny_store(tmp_path / "tiny", nodes=700, train=100)
    store = derive_unseen(tmp_path / "unseen", base, SPECS["inductive"])
    known = np.setdiff1d(np.arange(store.num_nodes), store.unseen)
    probabilities = torch.full((store.num_nodes, store.num_classes), 0.25)
    probabilities[:, 0] += 0.01
    changed = probabilities.clone()
    changed[store.unseen] = torch.rand(len(store.unseen), store.num_classes)
    one, other = (correct_and_smooth(store, given) for given in (probabilities, changed))
    assert torch.equal(one[known], other[known])
    assert not torch.equal(one[store.unseen], other[store.unseen])
