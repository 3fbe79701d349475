"""The products of a SAGE layer against torch's own in float64."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sagebench.models.sage import products


def make_case(n, inputs, outputs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(n, inputs), (n, inputs), (outputs, inputs), (outputs,), (outputs, inputs)]
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    return tensors, torch.randn(n, outputs, generator=generator)


def results(function, tensors, upstream):
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    out = function(*tensors)
    return [out.detach(), *torch.autograd.grad(out, tensors, upstream)]


def oracle(aggregated, root, weight_l, bias, weight_r):
    return aggregated @ weight_l.t() + bias + root @ weight_r.t()


@settings(max_examples=25)
@given(n=st.integers(0, 40), inputs=st.integers(1, 40), outputs=st.integers(1, 40))
def test_equals_double(n, inputs, outputs):
    tensors, upstream = make_case(n, inputs, outputs)
    got = results(products, tensors, upstream)
    expected = results(oracle, [tensor.double() for tensor in tensors], upstream.double())
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


def test_features_without_gradient_get_none():
    tensors, upstream = make_case(5, 4, 3)
    for parameter in tensors[2:]:
        parameter.requires_grad_()
    products(*tensors).backward(upstream)
    assert [tensor.grad is None for tensor in tensors] == [True, True, False, False, False]


def test_result_may_be_overwritten():
    tensors, upstream = make_case(5, 4, 3)
    parameters = [tensor.requires_grad_() for tensor in tensors]
    out = products(*parameters)
    expected = torch.autograd.grad(out, parameters, upstream, retain_graph=True)
    out.detach().zero_()
    for a, b in zip(torch.autograd.grad(out, parameters, upstream), expected, strict=True):
        assert torch.equal(a, b)
