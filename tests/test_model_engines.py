"""The engines compute the same: PyG's own layers are the oracle, on the same sample."""

import numpy as np
import pytest
import torch
from graphs import random_csc
from sagebench.model.graphsage import GraphSAGE
from sagebench.model.reference import PygGraphSAGE
from sagebench.sampling.cpu import CpuSampler

SLIDES_FANOUTS = [
    (50, 0, 0, 0, 0),
    (15, 0, 0, 0, 0),
    (15, 10, 0, 0, 0),
    (15, 10, 10, 0, 0),
    (15, 10, 10, 10, 0),
    (15, 10, 10, 10, 10),
    (10, 10, 10, 10, 10),
    (12, 12, 12, 12, 12),
    (15, 15, 15, 15, 15),
    (20, 15, 10, 5, 3),
    (15, 15, 10, 5, 5),
    (15, 15, 15, 5, 5),
    (12, 11, 10, 9, 8),
    (5, 5, 5, 5, 5),
    (3, 5, 10, 15, 20),
    (30, 10, 5, 3, 3),
]
NODES, FEATURES, HIDDEN, CLASSES = 3000, 12, 16, 7


@pytest.fixture(scope="module")
def graph():
    colptr, row = random_csc(NODES, 60_000)
    features = torch.randn(NODES, FEATURES, generator=torch.Generator().manual_seed(0))
    return CpuSampler(colptr, row), features


def logits_and_gradients(model, *inputs):
    logits = model(*inputs)
    weight = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
    (logits * weight).sum().backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("aggregator", ["mean", "sum", "max"])
@pytest.mark.parametrize("fanout", [*SLIDES_FANOUTS, (-1, -1, 2, 0, 0), (-1,) * 5])
def test_engines_agree_on_logits_and_gradients(graph, fanout, aggregator):
    sampler, features = graph
    seeds = np.random.default_rng(3).choice(NODES, 24, replace=False)
    whole = sampler.sample(seeds, fanout, key=11)
    short = sampler.sample(seeds, fanout, key=11, relabel_last=False)
    sizes = (FEATURES, HIDDEN, CLASSES, 5)

    torch.manual_seed(0)
    blocks = GraphSAGE(*sizes, aggregator=aggregator)
    expected = PygGraphSAGE(*sizes, aggregator=aggregator)
    trimmed = PygGraphSAGE(*sizes, aggregator=aggregator, trim=True)
    for model in (expected, trimmed):
        model.load_state_dict(blocks.state_dict())

    pyg_inputs = (
        features[whole.node_ids],
        whole.edge_index(),
        whole.nodes_per_hop,
        whole.edges_per_hop,
    )
    logits, gradients = logits_and_gradients(expected, *pyg_inputs)
    for model, inputs in ((trimmed, pyg_inputs), (blocks, (features, short))):
        found, found_gradients = logits_and_gradients(model, *inputs)
        torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5 * logits.abs().max().item())
        for name, gradient in gradients.items():
            scale = gradient.norm().item()
            difference = (found_gradients[name] - gradient).norm().item()
            assert difference <= 1e-5 * scale, name


def test_dropout_mask_follows_the_node_not_its_place():
    """The same node in the same micro-batch has the same mask, whatever is beside it."""
    model = GraphSAGE(FEATURES, HIDDEN, CLASSES, 2, dropout=0.5)
    together = model.activate(
        1, torch.ones(4, HIDDEN).cumsum(1), rows=torch.tensor([5, 6, 7, 8]), key=3
    )
    alone = model.activate(1, torch.ones(1, HIDDEN).cumsum(1), rows=torch.tensor([7]), key=3)
    assert torch.equal(together[2:3], alone)
    other = model.activate(1, torch.ones(1, HIDDEN).cumsum(1), rows=torch.tensor([7]), key=4)
    assert not torch.equal(other, alone)
