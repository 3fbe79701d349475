"""Probes and rates made up for a study, so that its plan holds predictions."""

from __future__ import annotations

from sagebench.files import write_json
from sagebench.grid.expansion import Study
from sagebench.predict.cards import card_rates
from sagebench.predict.probe import Probe, path_of
from sagebench.predict.rates import Network, Rates
from sagebench.predict.rates import path_of as rates_path
from sagebench.predict.samples import GraphFacts, Sample, Spread, sample_name

PRODUCTS = GraphFacts(
    num_nodes=2_449_029,
    num_edges=123_718_024,
    num_features=100,
    num_classes=47,
    train_nodes=196_615,
    valid_nodes=39_323,
    test_nodes=2_213_091,
    index_bytes=8 * 2_449_030 + 4 * 123_718_024,
    feature_bytes=400 * 2_449_029,
)
CHECKSUM = "c0ffee" * 10


def sample(fanout: tuple[int, ...], batch_size: int) -> Sample:
    """Every hop takes all of its neighbors and finds no node twice: at most half the graph."""
    nodes, edges = [float(batch_size)], []
    for hop in fanout:
        edges.append(nodes[-1] * hop)
        nodes.append(min(edges[-1], (PRODUCTS.num_nodes / 2 - sum(nodes)) / 2))
    return Sample(
        fanout=fanout,
        batch_size=batch_size,
        batches=8,
        sampled=True,
        nodes_per_hop=tuple(map(spread, nodes)),
        edges_per_hop=tuple(map(spread, edges)),
        nodes=spread(sum(nodes)),
        edges=spread(sum(edges)),
    )


def spread(mean: float) -> Spread:
    return Spread(mean, mean, 0.02 * mean)


def probe(study: Study, leave_out: tuple[str, ...] = ()) -> None:
    """Write the probes of the study's stores; `leave_out`: names of samples without."""
    for store in study.stores:
        pairs = {
            (request.trial.fanout, request.trial.batch_size)
            for request in study.requests.values()
            if request.store == store
        }
        samples = {sample_name(*pair): sample(*pair) for pair in pairs}
        for name in leave_out:
            samples.pop(name, None)
        record = Probe(CHECKSUM, PRODUCTS, samples).to_json()
        write_json(path_of(study.results, store), record)


def rate(study: Study, relative_error: float = 0.25) -> None:
    """Write rates of the site's machine: a card's on CUDA, simple ones on a CPU."""
    if study.site.device == "cuda":
        rates = card_rates("A100-40GB")
    else:
        kinds = ("stream", "norm", "gather", "scatter", "spread", "scatter_random", "segment")
        table = dict.fromkeys(kinds, 1e10)
        table |= dict.fromkeys(("products_fp32", "layer_products_fp32"), 1e11)
        table |= dict.fromkeys(("products_bf16", "regroup"), 1e10)
        table |= dict.fromkeys(("activation", "activation_backward", "dropout"), 1e9)
        table |= dict.fromkeys(("sampled_edges", "relabelled_edges", "scanned_nodes"), 3e7)
        table |= dict.fromkeys(("operations_blocks", "operations_pyg"), 1e5)
        table |= {"operations_optimizer": 1e5}
        network = Network(1e-5, 1e10)
        rates = Rates(
            source=f"rates measured on {study.site.machine}",
            device="cpu",
            device_name="a processor",
            kinds={1: {kind: ((1.0, value),) for kind, value in table.items()}},
            relative_error=relative_error,
            within_node=network,
            between_nodes=network,
            start_s=3.0,
            machine=study.site.machine,
            cores=8,
        )
    write_json(rates_path(study.results, study.site.machine), rates.to_json())
