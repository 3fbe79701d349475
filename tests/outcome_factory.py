"""Makes outcomes, attempts and frozen studies as the other rooms write them, with given values.

Times, memory and accuracy follow simple smooth formulas, so that figures of a made study look
like figures of a real one; a test that cares for a value gives it.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from sagebench.files import write_atomic, write_json
from sagebench.grid.trial import Trial

GIB = 1 << 30

TRIAL = {
    "dataset": {"name": "pubmed", "source": "pubmed", "split": "large"},
    "engine": "blocks",
    "sampler": "sagebench",
    "layers": 5,
    "hidden_channels": 256,
    "dropout": 0.5,
    "aggregator": "mean",
    "batch_size": 128,
    "accumulation": 5,
    "fanout": [15, 10, 10, 10, 10],
    "ranks": 1,
    "threads_per_rank": 1,
    "sampling_workers": 1,
    "epochs": 10,
    "optimizer": "adam",
    "learning_rate": 0.001,
    "learning_rate_scaling": "linear",
    "evaluate_every_epochs": 5,
    "patience_evaluations": 10,
    "validation": "full",
    "phase_window_steps": 10,
    "seed": 0,
    "precision": "fp32",
    "device": "cpu",
    "machine": "local",
    "memory_limit_gib": None,
    "placement": "auto",
    "compile": False,
}

STORES = {
    "pubmed": {
        "num_nodes": 19717,
        "num_edges": 88648,
        "num_features": 500,
        "num_classes": 3,
        "train_nodes": 18217,
        "valid_nodes": 500,
        "test_nodes": 1000,
    },
    "ogbn-products": {
        "num_nodes": 2449029,
        "num_edges": 123718024,
        "num_features": 100,
        "num_classes": 47,
        "train_nodes": 196615,
        "valid_nodes": 39323,
        "test_nodes": 2213091,
    },
}


def make_trial(**values: Any) -> dict[str, Any]:
    """The JSON of a trial, TRIAL with `values` over it."""
    return Trial.from_json({**TRIAL, **values}).to_json()


def trial_id(trial: dict[str, Any]) -> str:
    return Trial.from_json(trial).id


def make_outcome(
    trial: dict[str, Any],
    status: str = "completed",
    *,
    epoch_s: float = 10.0,
    peak_bytes: float = 4 * GIB,
    accuracy: float = 0.8,
    loss: float = 0.5,
    cores: int = 2,
    reason: dict[str, Any] | None = None,
    **provenance: Any,
) -> dict[str, Any]:
    """A valid outcome. Every epoch but the first takes `epoch_s`; the first takes 1.4 as long."""
    name = trial["dataset"]["name"]
    cuda = trial["device"] == "cuda"
    store = STORES.get(name, STORES["pubmed"])
    completed = status == "completed"
    epochs = _epochs(trial, store, epoch_s, accuracy, loss) if status != "out_of_memory" else []
    if status in ("time_limit", "diverged"):
        epochs = epochs[: max(1, len(epochs) // 2)]
    timed = [epoch["time_s"] for epoch in epochs[1:]]
    steps = epochs[0]["steps"] if epochs else None
    rank_limit = {
        "kind": "device_memory" if cuda else "memory_limit",
        "value": 40.0 if cuda else trial["memory_limit_gib"],
        "unit": "GiB",
    }
    default_reason = {
        "out_of_memory": {
            "rank": 0,
            "phase": "backward",
            "limit": rank_limit,
            "message": "CUDA out of memory. Tried to allocate 1.21 GiB."
            if cuda
            else "DefaultCPUAllocator: can't allocate memory",
        },
        "time_limit": {
            "rank": 0,
            "phase": "forward",
            "message": "walltime",
            "limit": {"kind": "walltime", "value": 1800.0, "unit": "s"},
        },
        "diverged": {"rank": 0, "phase": "backward", "message": "loss is nan", "limit": None},
        "completed": None,
    }[status]
    return {
        "schema": 1,
        "trial_id": trial_id(trial),
        "trial": trial,
        "status": status,
        "reason": reason or default_reason,
        "started_at": provenance.get("started_at", "2026-03-02T08:00:00+00:00"),
        "finished_at": provenance.get("finished_at", "2026-03-02T08:30:00+00:00"),
        "attempts": 1,
        "store": {"name": name, "checksum": provenance.get("checksum", "c0ffee" * 10), **store},
        "kernels_used": provenance.get("kernels_used", "plain"),
        "last_hop": "sampled",
        "placement": {
            "chosen": "device" if cuda else "mapped",
            "graph_bytes": 8 * store["num_nodes"] + 8 + 4 * store["num_edges"],
            "features_bytes": 4 * store["num_nodes"] * store["num_features"],
            "available_bytes": 39 * GIB if cuda else None,
        }
        if trial["engine"] == "blocks"
        else None,
        "parameters": 585_519,
        "oversubscribed": trial["ranks"] * trial["threads_per_rank"] > cores,
        "cores": cores,
        "epochs": epochs,
        "timing": None
        if not epochs
        else {
            "start_to_first_step_s": 3.5,
            "first_epoch_s": epochs[0]["time_s"],
            "epoch_median_s": sorted(timed)[len(timed) // 2] if timed else None,
            "epoch_min_s": min(timed, default=None),
            "epoch_max_s": max(timed, default=None),
            "epochs_timed": len(timed),
            "steps_per_epoch": steps,
            "seeds_per_s": store["train_nodes"] / epoch_s,
            "seeds_per_s_per_device": store["train_nodes"] / epoch_s / trial["ranks"],
            "edges_per_s": 12e6,
            "training_s": sum(epoch["time_s"] for epoch in epochs),
            "evaluation_s": 4.0,
            "total_s": sum(epoch["time_s"] for epoch in epochs) + 9.0,
        },
        "phases": None
        if not completed
        else {
            "micro_steps": 10,
            "sampling_s": 0.01,
            "data_s": 0.002,
            "forward_s": 0.02,
            "backward_s": 0.04,
            "waiting_s": 0.004 if trial["ranks"] > 1 else None,
            "synchronisation_s": 0.003 if trial["ranks"] > 1 else None,
            "optimizer_s": 0.001,
        },
        "memory": {
            "peak_allocated_bytes": int(peak_bytes * 0.9) if cuda else None,
            "peak_reserved_bytes": int(peak_bytes) if cuda else None,
            "peak_device_used_bytes": int(peak_bytes * 1.05) if cuda else None,
            "peak_host_private_bytes": 2 * GIB if cuda else int(peak_bytes),
        },
        "energy": {"nvml_j": 250.0 * epoch_s if cuda else None},
        "accuracy": {
            "best_epoch": trial["epochs"] if completed else None,
            "best_validation": accuracy + 0.01 if completed else None,
            "validation_method": trial["validation"] if completed else None,
            "test_full": accuracy if completed else None,
            "test_sampled": accuracy - 0.002 if completed else None,
        },
        "sample": {"nodes_per_hop": [128.0, 1200.5, 9000.0], "edges_per_hop": [1900.0, 12000.25]},
        "provenance": {
            "git_commit": provenance.get("git_commit", "a" * 40),
            "git_dirty": provenance.get("git_dirty", False),
            "image_digest": provenance.get("image_digest"),
            "expandable_segments": provenance.get("expandable_segments", False if cuda else None),
            "versions": provenance.get(
                "versions",
                {
                    "python": "3.11.7",
                    "torch": "2.13.0",
                    "torch_geometric": "2.8.0",
                    "numba": "0.63.0",
                    "pyg_lib": None,
                },
            ),
            "command": "workflow_scripts/run_trial.py --trial trial.json",
        },
        "ranks": [_rank(rank, trial, cores, provenance) for rank in range(trial["ranks"])],
    }


def _epochs(
    trial: dict[str, Any], store: dict[str, int], epoch_s: float, accuracy: float, loss: float
) -> list[dict[str, Any]]:
    step = trial["batch_size"] * trial["accumulation"] * trial["ranks"]
    micro_batches = math.ceil(store["train_nodes"] / trial["batch_size"])
    noise = random.Random(trial["seed"])
    epochs = []
    for epoch in range(1, trial["epochs"] + 1):
        evaluated = epoch % trial["evaluate_every_epochs"] == 0 or epoch == trial["epochs"]
        epochs.append(
            {
                "epoch": epoch,
                "time_s": epoch_s * (1.4 if epoch == 1 else 1.0),
                "steps": math.ceil(store["train_nodes"] / step),
                "micro_batches": micro_batches,
                "loss": (loss + 1.5 / epoch) * (1 + noise.uniform(-0.02, 0.02)),
                "train_accuracy": min(0.99, accuracy * (1 - 0.5 / epoch)),
                "seeds": store["train_nodes"],
                "nodes": micro_batches * 10_000,
                "edges": micro_batches * 14_000,
                "nodes_per_hop": [128.0, 1200.5, 9000.0],
                "edges_per_hop": [1900.0, 12000.25],
                "learning_rate": trial["learning_rate"] * trial["ranks"],
                "sampling_wait_s": 0.05,
                "validation_accuracy": accuracy if evaluated else None,
                "evaluation_s": 2.0 if evaluated else None,
                "resumed": False,
            }
        )
    return epochs


def _rank(rank: int, trial: dict[str, Any], cores: int, provenance: dict[str, Any]) -> dict:
    cuda = trial["device"] == "cuda"
    host = provenance.get("host") or ("mel2001" if cuda else "laptop")
    return {
        "rank": rank,
        "local_rank": rank % 4,
        "host": host,
        "node": host,
        "pid": 4000 + rank,
        "device": trial["device"],
        "device_name": "NVIDIA A100-SXM4-40GB" if cuda else None,
        "device_uuid": f"GPU-{rank:08x}" if cuda else None,
        "device_memory_bytes": 42_298_834_944 if cuda else None,
        "driver": "560.35.03" if cuda else None,
        "cpu_model": "AMD EPYC 7452 32-Core Processor",
        "cores": cores,
        "threads": trial["threads_per_rank"],
        "load_1m": 0.3,
        "memory_total_bytes": 512 * GIB if cuda else 8 * GIB,
        "slurm": {"slurm_job_id": "4242"} if cuda else {},
        "peak_host_private_bytes": 2 * GIB,
    }


class StudyFiles:
    """A results folder that grows: experiments, outcomes, failed attempts, the frozen study."""

    def __init__(self, results: Path, name: str = "demo") -> None:
        self.results, self.name = Path(results), name
        self.experiments: dict[str, dict[str, Any]] = {}
        self.site = {"machine": "local", "device": "cpu"}

    @property
    def path(self) -> Path:
        return self.results / self.name / "frozen" / "0123456789.json"

    def experiment(self, name: str, axis: str, title: str | None = None) -> None:
        self.experiments[name] = {
            "name": name,
            "title": title or name,
            "axis": axis,
            "seeds": [],
            "trials": [],
        }

    def ask(self, experiment: str, trial: dict[str, Any]) -> Path:
        """Put the trial into the experiment; its folder, with trial.json."""
        entry = self.experiments[experiment]
        name = trial_id(trial)
        if name not in entry["trials"]:
            entry["trials"].append(name)
        folder = self.results / "trials" / name
        write_json(folder / "trial.json", trial)
        return folder

    def add(
        self, experiment: str, outcome: dict[str, Any] | None = None, **values: Any
    ) -> dict[str, Any]:
        """Put an outcome into the experiment, `make_outcome(make_trial())` unless given."""
        outcome = outcome or make_outcome(make_trial(**values))
        write_json(self.ask(experiment, outcome["trial"]) / "outcome.json", outcome)
        return outcome

    def attempt(self, experiment: str, trial: dict[str, Any], **attempt: Any) -> None:
        """Put a trial without an outcome into the experiment, with one attempt behind it."""
        folder = self.ask(experiment, trial)
        line = {
            "attempt": 1,
            "started_at": "2026-03-02T08:00:00+00:00",
            "finished_at": "2026-03-02T08:01:00+00:00",
            "status": "failed",
            "reason": None,
            "log": str(folder / "log.txt"),
        } | attempt
        write_atomic(folder / "attempts.jsonl", json.dumps(line) + "\n")

    def freeze(self, **more: Any) -> Path:
        """Write the frozen study; `more` is what else it holds."""
        write_json(
            self.path,
            {
                **more,
                "format": 1,
                "study": self.name,
                "configuration": {"study": self.name, "results": "results"},
                "site": self.site,
                "experiments": list(self.experiments.values()),
                "requests": {},
            },
        )
        return self.path
