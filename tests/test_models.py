"""Models on blocks compute what PyG's own layers do, on the same sample."""

import numpy as np
import pytest
import torch
from graphs import random_csc
from sagebench import registry
from sagebench.engines.pyg import PygNetwork
from sagebench.models.base import Network
from sagebench.sampling.uniform import Sampler as CpuSampler
from torch_geometric.nn import GCNConv

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
FANOUTS = [*SLIDES_FANOUTS, (-1, -1, 2, 0, 0), (-1,) * 5]
NODES, FEATURES, HIDDEN, CLASSES = 3000, 12, 16, 7
WIDTHS = [FEATURES, HIDDEN, HIDDEN, HIDDEN, HIDDEN, CLASSES]
OPTIONS = {
    "sage": [{"aggregator": aggregator} for aggregator in ("mean", "sum", "max")],
    "gat": [{"heads": 1}, {"heads": 4}],
}


def default_options(model):
    declared = registry.declared("model", model).get("OPTIONS", {})
    return {key: option["default"] for key, option in declared.items()}


CASES = [
    (model, options)
    for model in registry.names("model")
    for options in OPTIONS.get(model, [default_options(model)])
]


@pytest.fixture(scope="module")
def graph():
    colptr, row = random_csc(NODES, 60_000)
    features = torch.randn(NODES, FEATURES, generator=torch.Generator().manual_seed(0))
    return CpuSampler(colptr, row), features, torch.from_numpy(np.diff(colptr)).float()


def logits_and_gradients(model, *inputs):
    logits = model(*inputs)
    weight = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
    (logits * weight).sum().backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("fanout", FANOUTS, ids=lambda fanout: ",".join(map(str, fanout)))
@pytest.mark.parametrize("model, options", CASES)
def test_engines_agree_on_logits_and_gradients(graph, model, options, fanout):
    sampler, features, degrees = graph
    seeds = np.random.default_rng(3).choice(NODES, 24, replace=False)
    whole = sampler.sample(seeds, fanout, key=11)
    short = sampler.sample(seeds, fanout, key=11, relabel_last=False)
    layer = registry.load("model", model).Layer
    of_sample = degrees[whole.node_ids] if layer.needs_degrees else None

    torch.manual_seed(0)
    blocks = Network(model, WIDTHS, options=options)
    expected = PygNetwork(model, WIDTHS, "whole", options=options)
    others = [blocks]
    runs = [(blocks, (features[whole.node_ids], whole, True, of_sample))]
    if "AGGREGATES_FEATURES" in registry.declared("model", model):
        runs.append((blocks, (features, short)))
    pyg_inputs = (
        features[whole.node_ids],
        whole.edge_index(),
        whole.nodes_per_hop,
        whole.edges_per_hop,
        of_sample,
    )
    engines = registry.declared("model", model).get("ENGINES", ["trimmed", "bipartite"])
    for layout in {"trimmed", "bipartite"} & set(engines):
        peer = PygNetwork(model, WIDTHS, layout, options=options)
        others.append(peer)
        runs.append((peer, pyg_inputs))
    for network in (expected, *others):
        network.load_state_dict(blocks.state_dict())

    logits, gradients = logits_and_gradients(expected, *pyg_inputs)
    for network, inputs in runs:
        network.zero_grad()
        found, found_gradients = logits_and_gradients(network, *inputs)
        torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5 * logits.abs().max().item())
        largest = max(gradient.norm().item() for gradient in gradients.values())
        for name, gradient in gradients.items():
            difference = (found_gradients[name] - gradient).norm().item()
            # Those of the attention's vectors nearly cancel out, in float32.
            assert difference <= 1e-5 * gradient.norm().item() + 1e-6 * largest, name


def test_gcn_of_every_neighbor_is_gcn(graph):
    """PyG's own normalisation is the oracle of the weights."""
    sampler, features, degrees = graph
    whole = sampler.sample(np.arange(NODES), (-1,), key=1)
    gcn = registry.load("model", "gcn")
    peer = gcn.peer(FEATURES, CLASSES, last=True)
    normalised = GCNConv(FEATURES, CLASSES)
    normalised.load_state_dict(peer.state_dict())
    edge_index = whole.edge_index()
    with torch.no_grad():
        found = peer(features, *gcn.peer_edges(edge_index, degrees))
        torch.testing.assert_close(found, normalised(features, edge_index))
