"""Does sagebench learn what PyG's own stack learns? Paired seeds, the difference, its interval.

For each seed, a trial of the engine `blocks` is run as ever, and the same settings are trained with
PyG alone: its GraphSAGE model, its NodeLoader (over our sampler, for its own needs pyg-lib), its
full-batch inference. They share the split, the hyperparameters and the sampler. The claim is
equivalence: the 95 % interval of the mean difference in test accuracy lies within the margin.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch_geometric.data import Data
from torch_geometric.loader import NodeLoader
from torch_geometric.nn import GraphSAGE

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from sagebench.engines.pyg import KeyedSampler
from sagebench.errors import run_script
from sagebench.files import write_json
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.launch.job import Job
from sagebench.launch.launcher import run_trial
from sagebench.records import read_outcome
from sagebench.sampling.blocks import torch_view
from sagebench.sampling.uniform import Sampler

MARGIN = 0.01
"""largest difference in accuracy that counts as none; fixed before the first comparison"""

SETTINGS = {
    "dataset": {"name": "pubmed", "source": "pubmed", "split": "large"},
    "layers": 3,
    "hidden_channels": 64,
    "fanout": [10, 5, 5],
    "batch_size": 256,
    "accumulation": 1,
    "epochs": 10,
    "evaluate_every_epochs": 1,
    "patience_evaluations": None,
    "learning_rate": 0.003,
    "phase_window_steps": 0,
    "threads_per_rank": 2,
    "device": "cpu",
    "machine": "comparison",
}


def ours(trial: Trial, store: Path) -> float:
    """Test accuracy of a trial, with every neighbor, of its best epoch by validation."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_json(home / "trial.json", trial.to_json())
        code = run_trial(Job.read(home / "trial.json", store, home / "outcome.json", None), None)
        if code:
            raise RuntimeError(f"the trial {trial.id} failed")
        return read_outcome(home / "outcome.json").accuracy.test_full


def pygs(trial: Trial, store: GraphStore) -> float:
    """The same of PyG's GraphSAGE, trained in the way of PyG's own examples."""
    torch.manual_seed(trial.seed)
    column = np.repeat(np.arange(store.num_nodes), np.diff(store.colptr))
    data = Data(
        x=torch_view(store.features),
        y=torch_view(store.labels).long(),
        edge_index=torch.from_numpy(np.stack([store.row.astype(np.int64), column])),
    )
    sampler = KeyedSampler(store, trial, Sampler)
    loader = NodeLoader(
        data,
        node_sampler=sampler,
        input_nodes=torch.from_numpy(np.array(store.train)),
        batch_size=trial.batch_size,
        shuffle=True,
    )
    model = GraphSAGE(
        store.num_features,
        trial.hidden_channels,
        trial.layers,
        store.num_classes,
        dropout=trial.dropout,
        norm="layer_norm",
        norm_kwargs={"mode": "node"},
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=trial.learning_rate)
    best, best_state = -1.0, {}
    for epoch in range(1, trial.epochs + 1):
        sampler.epoch = epoch
        model.train()
        for batch in loader:
            optimizer.zero_grad()
            logits = model(batch.x, batch.edge_index)[: batch.batch_size]
            F.cross_entropy(logits, batch.y[: batch.batch_size]).backward()
            optimizer.step()
        if (accuracy := inference(model, data, store.valid)) > best:
            best, best_state = accuracy, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    return inference(model, data, store.test)


@torch.no_grad()
def inference(model: GraphSAGE, data: Data, nodes: np.ndarray) -> float:
    model.eval()
    nodes = torch.from_numpy(np.array(nodes))
    return (model(data.x, data.edge_index)[nodes].argmax(1) == data.y[nodes]).float().mean().item()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True, help="PubMed's store, split: large")
    parser.add_argument("--seeds", type=int, default=8, help="paired seeds, at least 5")
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(SETTINGS["threads_per_rank"])
    store = GraphStore.open(arguments.store)
    rows = []
    for seed in range(arguments.seeds):
        trial = Trial.from_json({**SETTINGS, "seed": seed})
        rows.append((ours(trial, arguments.store), pygs(trial, store)))
        print(f"seed {seed}: sagebench {rows[-1][0]:.4f}, PyG {rows[-1][1]:.4f}", file=sys.stderr)
    differences = [one - other for one, other in rows]
    mean = statistics.mean(differences)
    half = stats.t.ppf(0.975, len(rows) - 1) * statistics.stdev(differences) / len(rows) ** 0.5
    result = {
        "seeds": len(rows),
        "sagebench_mean": statistics.mean(one for one, _ in rows),
        "pyg_mean": statistics.mean(other for _, other in rows),
        "difference_mean": mean,
        "difference_interval_95": [mean - half, mean + half],
        "margin": MARGIN,
        "equivalent": bool(abs(mean) + half <= MARGIN),
        "pairs": rows,
    }
    if arguments.out:
        write_json(arguments.out, result)
    print(json.dumps(result))
    return 0 if result["equivalent"] else 1


if __name__ == "__main__":
    run_script(main)
