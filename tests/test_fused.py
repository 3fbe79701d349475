"""The fused LayerNorm, ReLU and dropout against torch's operations with the same mask."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sagebench.kernels import fused
from sagebench.kernels.fused import norm_relu_dropout
from sagebench.kernels.mask import keep_mask, scale, threshold
from sagebench.sampling.random import COLUMN_STRIDE, ROUND_1, ROUND_2, hash_ids

MASK32 = (1 << 32) - 1


def mask_by_definition(key, ids, columns, p):
    """Python integers, element by element, as the module's text says."""
    mask = []
    for state in hash_ids(key, np.array(ids)).tolist():
        a, b = state & MASK32, state >> 32
        row = []
        for c in range(columns):
            v = ((c // 2) * COLUMN_STRIDE & MASK32) ^ a
            v = (v ^ (v >> 16)) * ROUND_1 & MASK32
            v = ((v ^ (v >> 15)) + b & MASK32) * ROUND_2 & MASK32
            word = v ^ (v >> 16)
            row.append((word >> 16 * (c % 2) & 0xFFFF) >= threshold(p))
        mask.append(row)
    return torch.tensor(mask, dtype=torch.bool).view(len(ids), columns)


def oracle(x, weight, bias, p, key, rows):
    """In float64."""
    x, weight, bias = x.double(), weight.double(), bias.double()
    y = torch.relu(torch.nn.functional.layer_norm(x, x.shape[1:], weight, bias))
    return y * keep_mask(key, rows, x.shape[1], p) * scale(p)


def make_case(n, columns, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, columns, generator=generator, dtype=dtype) * 3 + 1
    weight = torch.rand(columns, generator=generator, dtype=dtype) + 0.5
    bias = torch.randn(columns, generator=generator, dtype=dtype)
    rows = torch.randperm(10 * n + 1, generator=generator)[:n]
    upstream = torch.randn(n, columns, generator=generator, dtype=dtype)
    return x, weight, bias, rows, upstream


def with_gradients(function, tensors, upstream):
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    out = function(*tensors)
    gradients = torch.autograd.grad(out, tensors, upstream.to(out.dtype))
    return [out.detach(), *gradients]


keys = st.integers(0, 2**64 - 1)
probabilities = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])


@settings(max_examples=50)
@given(
    key=keys,
    ids=st.lists(st.integers(0, 2**40), max_size=5),
    columns=st.integers(1, 9),
    p=probabilities,
)
def test_mask_is_as_defined(key, ids, columns, p):
    got = keep_mask(key, torch.tensor(ids, dtype=torch.int64), columns, p)
    assert torch.equal(got, mask_by_definition(key, ids, columns, p))


def test_mask_does_not_depend_on_the_width_or_the_row_order():
    rows = torch.randperm(1000)
    wide = keep_mask(7, rows, 256, 0.3)
    assert torch.equal(keep_mask(7, rows, 101, 0.3), wide[:, :101])
    assert torch.equal(keep_mask(7, rows[500:].int(), 256, 0.3), wide[500:])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.75])
def test_mask_has_its_rate_everywhere_and_no_pairs(p):
    n, columns = 4000, 256
    mask = keep_mask(11, torch.arange(n), columns, p).double()
    centred = (mask - (1 - p)) / (p * (1 - p)) ** 0.5
    assert abs(centred.mean()) * (n * columns) ** 0.5 < 5
    assert (centred.mean(0) * n**0.5).abs().max() < 5
    assert (centred.mean(1) * columns**0.5).abs().max() < 5.5
    other_layer = (keep_mask(12, torch.arange(n), columns, p).double() - (1 - p)) / (
        p * (1 - p)
    ) ** 0.5
    pairs = {
        "neighboring columns": centred[:, 1:] * centred[:, :-1],
        "neighboring words": centred[:, 2:] * centred[:, :-2],
        "neighboring rows": centred[1:] * centred[:-1],
        "neighboring keys": centred * other_layer,
    }
    for name, product in pairs.items():
        assert abs(product.mean()) * product.numel() ** 0.5 < 5, name


@pytest.mark.parametrize("path", ["kernels", "plain torch"])
@settings(max_examples=40)
@given(
    n=st.integers(0, 12),
    columns=st.integers(1, 70),
    seed=st.integers(0, 99),
    key=keys,
    p=probabilities,
    overwrite=st.booleans(),
)
def test_equals_torch_in_double(path, n, columns, seed, key, p, overwrite):
    x, weight, bias, rows, upstream = make_case(n, columns, seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        if path == "plain torch":
            monkeypatch.setattr(fused, "_has_kernel", lambda *_: False)
        got = with_gradients(
            lambda *tensors: norm_relu_dropout(
                *tensors, p, key, True, rows=rows, overwrite=overwrite
            ),
            (x, weight, bias),
            upstream,
        )
    expected = with_gradients(
        lambda *tensors: oracle(*tensors, p, key, rows), (x, weight, bias), upstream
    )
    near = 1e-2 if columns < 4 else 2e-4  # a row of no deviation is divided by sqrt(eps)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-4, atol=near)


def test_gradcheck_of_the_plain_path():
    x, weight, bias, rows, _ = make_case(4, 5, 0, torch.float64)
    tensors = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    assert torch.autograd.gradcheck(
        lambda *t: norm_relu_dropout(*t, 0.4, 3, True, rows=rows), tensors
    )


def test_threads_change_nothing():
    x, weight, bias, rows, upstream = make_case(5000, 64, 1)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(
                with_gradients(
                    lambda *t: norm_relu_dropout(*t, 0.5, 9, True, rows=rows),
                    (x, weight, bias),
                    upstream,
                )
            )
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_evaluation_drops_nothing_and_may_reuse_memory():
    x, weight, bias, rows, _ = make_case(50, 32, 2)
    expected = torch.relu(torch.nn.functional.layer_norm(x, (32,), weight, bias))
    memory = x.clone()
    with torch.no_grad():
        out = norm_relu_dropout(x, weight, bias, 0.5, 1, False, rows=rows)
        reused = norm_relu_dropout(memory, weight, bias, 0.5, 1, False, overwrite=True)
    torch.testing.assert_close(out, expected)
    assert torch.equal(reused, out)


def test_input_and_upstream_gradient_are_left_alone():
    x, weight, bias, rows, upstream = make_case(50, 32, 3)
    copies = x.clone(), upstream.clone()
    x.requires_grad_()
    norm_relu_dropout(x, weight, bias, 0.5, 1, True, rows=rows).backward(upstream)
    assert torch.equal(x.detach(), copies[0])
    assert torch.equal(upstream, copies[1])


def test_overwritten_memory_has_one_backward_pass():
    x, weight, bias, _, upstream = make_case(5, 8, 4)
    out = norm_relu_dropout(x.requires_grad_(), weight, bias, 0.5, 1, True, overwrite=True)
    out.backward(upstream, retain_graph=True)
    with pytest.raises(RuntimeError, match="once only"):
        out.backward(upstream)


def test_nan_is_not_hidden():
    x, weight, bias, _, _ = make_case(3, 16, 5)
    x[1, 4] = float("nan")
    out = norm_relu_dropout(x, weight, bias, 0.5, 1, True)
    assert torch.isnan(out[1]).all()
    assert not torch.isnan(out[[0, 2]]).any()


def test_bfloat16_with_float_parameters():
    x, weight, bias, rows, upstream = make_case(30, 64, 6)
    got = with_gradients(
        lambda x, w, b: norm_relu_dropout(x.bfloat16(), w, b, 0.5, 8, True, rows=rows),
        (x, weight, bias),
        upstream,
    )
    assert got[0].dtype == torch.bfloat16
    expected = oracle(x, weight, bias, 0.5, 8, rows)
    torch.testing.assert_close(got[0].double(), expected, rtol=5e-2, atol=5e-2)


def test_an_impossible_probability_is_named():
    with pytest.raises(ValueError, match=r"dropout is 1.5; write a probability from 0 to 1"):
        norm_relu_dropout(torch.ones(1, 2), torch.ones(2), torch.ones(2), 1.5, 0, True)


@pytest.mark.cuda
def test_cuda_draws_the_same_mask():
    rows = torch.randperm(1000)
    expected = keep_mask(2**63 + 5, rows, 256, 0.5)
    assert torch.equal(keep_mask(2**63 + 5, rows.cuda(), 256, 0.5).cpu(), expected)
    x, weight, bias, rows, upstream = make_case(100, 256, 7)
    function = lambda *t, rows=rows: norm_relu_dropout(*t, 0.5, 9, True, rows=rows)  # noqa: E731
    cpu = with_gradients(function, (x, weight, bias), upstream)
    cuda = with_gradients(
        lambda *t: function(*t, rows=rows.cuda()),
        (x.cuda(), weight.cuda(), bias.cuda()),
        upstream.cuda(),
    )
    for a, b in zip(cuda, cpu, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-4)
