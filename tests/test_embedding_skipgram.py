"""A step of skip-gram: its gradient, Adam, both implementations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sagebench.embedding.skipgram import SkipGram, first_vectors
from sagebench.embedding.skipgram_torch import TensorSkipGram

NODES = 30
RATE = 0.01


def pairs_of(walks, negatives, context):
    """The centers and contexts, and the centers and negatives, pair by pair."""
    positive, negative = [], []
    for walk, drawn in zip(walks.tolist(), negatives.tolist(), strict=True):
        for i in range(len(walk) + 1 - context):
            for j in range(i + 1, i + context):
                if walk[j] >= 0 and walk[j] != walk[i]:
                    positive.append((walk[i], walk[j]))
                    negative += [(walk[i], row[j - 1]) for row in drawn if row[j - 1] != walk[i]]
    return positive, negative


def dense_loss(vectors, walks, negatives, context):
    """The loss by its definition."""
    positive, negative = pairs_of(walks, negatives, context)
    total = 0
    for pairs, sign in ((positive, 1), (negative, -1)):
        a, b = np.array(pairs, np.int64).reshape(-1, 2).T
        total -= torch.nn.functional.logsigmoid(sign * (vectors[a] * vectors[b]).sum(1)).sum()
    return total / max(len(positive), 1)


def make_batch(seed, walks=40, length=8, many=2, nodes=NODES, ended=True):
    """Walks of random nodes, with repeats; some end early, one at once."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, nodes, (walks, length + 1))
    if ended:
        ends = rng.integers(1, 2 * length, walks)
        ends[0] = 1
        found[np.arange(length + 1) >= ends[:, None]] = -1
    return found, rng.integers(0, nodes, (walks, many, length))


def make_vectors(seed, dimension, nodes=NODES):
    rng = np.random.default_rng(seed)
    return (0.5 * rng.standard_normal((nodes, dimension))).astype(np.float32)


def models(vectors, context, threads=1):
    return (
        SkipGram(vectors.copy(), context, RATE, threads),
        TensorSkipGram(torch.from_numpy(vectors.copy()), context, RATE),
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    walks=st.sampled_from([1, 2, 33]),
    length=st.integers(1, 9),
    many=st.integers(0, 3),
    dimension=st.sampled_from([1, 3, 16, 37]),
    data=st.data(),
)
def test_the_gradient_is_that_of_the_loss(seed, walks, length, many, dimension, data):
    context = data.draw(st.integers(2, length + 1))
    batch = make_batch(seed, walks, length, many)
    vectors = make_vectors(seed, dimension)
    exact = torch.from_numpy(vectors).double().requires_grad_()
    loss = dense_loss(exact, *batch, context)
    loss.backward()
    for model in models(vectors, context):
        assert model.step(*batch) == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
        gradient = torch.as_tensor(model.mean).double() / 0.1  # (1 - beta_1) g, after one step
        torch.testing.assert_close(gradient, exact.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [0, 1])
def test_steps_are_those_of_torch_sparse_adam(kind):
    vectors = make_vectors(1, 16)
    model = models(vectors, 5)[kind]
    weight = torch.from_numpy(vectors).double().requires_grad_()
    optimizer = torch.optim.SparseAdam([weight], lr=RATE)
    for turn in range(6):
        batch = make_batch(turn, walks=3)  # each step leaves rows out
        gradient = torch.autograd.grad(dense_loss(weight, *batch, 5), weight)[0]
        rows = gradient.abs().sum(1).nonzero()[:, 0]
        assert 0 < len(rows) < NODES
        sparse = rows[None], gradient[rows], gradient.shape
        weight.grad = torch.sparse_coo_tensor(*sparse, check_invariants=False)
        optimizer.step()
        model.step(*batch)
        found = torch.as_tensor(model.vectors).double()
        torch.testing.assert_close(found, weight.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("length", "context", "dimension"), [(40, 20, 128), (5, 6, 128), (9, 2, 7)]
)
def test_tensor_operations_agree_with_the_compiled_loops(length, context, dimension):
    compiled, tensors = models(make_vectors(2, dimension, 500), context)
    for turn in range(3):
        batch = make_batch(turn, 200, length, 1, nodes=500)
        assert tensors.step(*batch) == pytest.approx(compiled.step(*batch), rel=1e-6)
        for name in ("vectors", "mean", "square"):
            expected = torch.as_tensor(getattr(compiled, name))
            torch.testing.assert_close(getattr(tensors, name), expected, rtol=0, atol=1e-5)


def test_threads_change_no_bit():
    found = []
    for threads in (1, 2, 3):
        model = SkipGram(make_vectors(3, 32, 2000), 5, RATE, threads)
        losses = [model.step(*make_batch(turn, 300, nodes=2000)) for turn in range(3)]
        found.append((losses, model.vectors.tobytes(), model.square.tobytes()))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("kind", [0, 1])
def test_frozen_rows_keep_still_and_the_others_step_as_ever(kind):
    vectors, batch = make_vectors(4, 16), make_batch(4)
    trained = np.arange(NODES) % 3 == 0
    free, model = models(vectors, 5)[kind], models(vectors, 5)[kind]
    assert model.step(*batch, trained) == free.step(*batch)
    for name in ("vectors", "mean", "square"):
        found, before = getattr(model, name), vectors if name == "vectors" else 0 * vectors
        assert np.array_equal(found[~trained], before[~trained])
        assert np.array_equal(found[trained], getattr(free, name)[trained])
    assert not np.array_equal(model.vectors[trained], vectors[trained])


@pytest.mark.parametrize("kind", [0, 1])
def test_rows_outside_of_the_batch_are_not_touched(kind):
    vectors = make_vectors(5, 16, 50)
    model = models(vectors, 5)[kind]
    for turn in range(3):
        model.step(*make_batch(turn))
    assert np.array_equal(model.vectors[NODES:], vectors[NODES:])
    assert not np.any(np.asarray(model.mean[NODES:]))
    assert (np.asarray(model.vectors[:NODES]) != vectors[:NODES]).any(1).all()


@pytest.mark.parametrize("kind", [0, 1])
def test_a_batch_without_a_pair_changes_nothing(kind):
    vectors = make_vectors(6, 16)
    model = models(vectors, 5)[kind]
    model.step(*make_batch(0))
    before = np.asarray(model.vectors).copy()
    walks, negatives = make_batch(1)
    walks[:, 1:] = -1  # nodes without neighbors
    assert model.step(walks, negatives) == 0
    walks[:] = 7  # nothing but itself
    assert model.step(walks, negatives) == 0
    assert np.array_equal(model.vectors, before)


def test_large_scores_overflow_nowhere():
    vectors = make_vectors(7, 16) * 100
    batch = make_batch(7)
    expected = dense_loss(torch.from_numpy(vectors).double(), *batch, 5).item()
    for model in models(vectors, 5):
        assert model.step(*batch) == pytest.approx(expected, rel=1e-5)
        assert np.isfinite(np.asarray(model.vectors)).all()


def test_first_vectors_are_uniform_and_keyed():
    vectors = first_vectors(np.arange(5000), 16, 3)
    assert vectors.min() >= -1 / 32 and vectors.max() < 1 / 32
    assert abs(vectors.mean()) < 1e-3 and vectors.std() == pytest.approx(1 / 16 / 12**0.5, rel=0.01)
    assert len(np.unique(vectors)) > 0.99 * vectors.size
    assert np.array_equal(first_vectors(np.array([9, 4]), 16, 3), vectors[[9, 4]])
    assert (first_vectors(np.array([9, 4]), 16, 4) != vectors[[9, 4]]).all()


@pytest.mark.cuda
def test_on_a_gpu_steps_repeat_to_the_bit_and_agree_with_the_loops():
    vectors = make_vectors(8, 128, 500)
    compiled = SkipGram(vectors.copy(), 20, RATE)
    on_gpu = [TensorSkipGram(torch.from_numpy(vectors).cuda(), 20, RATE) for _ in range(2)]
    for turn in range(5):
        batch = make_batch(turn, 400, 40, 1, nodes=500)
        compiled.step(*batch)
        losses = [model.step(*batch) for model in on_gpu]
        assert losses[0] == losses[1]
        assert torch.equal(on_gpu[0].vectors, on_gpu[1].vectors)
        expected = torch.from_numpy(compiled.vectors)
        torch.testing.assert_close(on_gpu[0].vectors.cpu(), expected, rtol=0, atol=1e-5)
