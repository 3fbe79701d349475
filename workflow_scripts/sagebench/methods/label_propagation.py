"""Label propagation: the training nodes' classes spread along the edges; nothing is learned."""

from __future__ import annotations

from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.methods.propagation import ROUNDS, Graph, one_hot_labels, propagate
from sagebench.records import Accuracy, Measured
from sagebench.sampling.blocks import torch_view
from sagebench.training.distributed import Communicator, Progress
from sagebench.training.evaluation import share_of

METHOD = "label propagation (Zhou et al. 2004): the training nodes' classes spread along the edges"
KEYS: list[str] = []
OPTIONS = {
    "alpha": {
        "type": "number",
        "gt": 0,
        "lt": 1,
        "example": 0.9,
        "default": 0.9,
        "help": "share of its neighbors' values in a node's own, in each round",
    }
}


def run(
    trial: Trial, store: GraphStore, communicator: Communicator, progress: Progress
) -> Measured:
    """Up to 50 rounds, of which validation chooses the best. The unseen nodes come last: their own
    rows alone are propagated, in the whole graph."""
    device, alpha = communicator.device, trial.options["alpha"]
    assert isinstance(alpha, float)
    labels = torch_view(store.labels).to(device)
    valid = torch_view(store.valid).to(device)
    graph, start = Graph(store, device), one_hot_labels(store, device)
    values, best, accuracy, chosen = start, start, -1.0, 0
    for number in progress.over(range(1, ROUNDS + 1), ROUNDS, "rounds of propagation"):
        values = graph.step(values, start, alpha)
        found = (values[valid].argmax(1) == labels[valid]).float().mean().item()
        if found > accuracy:
            best, accuracy, chosen = values, found, number
    if store.unseen is not None and store.whole is not store:
        outer = Graph(store.whole, device, torch_view(store.unseen).to(device))
        best = propagate(outer, start, alpha, values=best)
    hits = (best.argmax(1) == labels)[torch_view(store.test).to(device)].cpu()
    return Measured(
        accuracy=Accuracy(
            best_epoch=chosen,
            best_validation=accuracy,
            validation_method="full",
            test_full=hits.sum().item() / len(hits),
            unseen=share_of(hits, store.test, store.unseen),
        )
    )
