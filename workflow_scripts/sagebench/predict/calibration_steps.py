"""What a step costs however small it is, measured on the engines themselves."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from sagebench.engines.make import make_engine
from sagebench.graph.store import GraphStore, write_store
from sagebench.grid.trial import Trial
from sagebench.measure.clocks import PhaseClock
from sagebench.predict.phases import parameter_tensors_updated
from sagebench.predict.work import OPERATIONS, path_of
from sagebench.training.distributed import Communicator, RankEnvironment
from sagebench.training.progress import Progress
from sagebench.training.trainer import Trainer, synchronise_device

FEWEST = 3
DATASET = {"name": "calibration", "source": "arrays", "path": "calibration.npz"}


class Stopwatch:
    """Median seconds of a call, repeated for `slice_s`, FEWEST times at least."""

    def __init__(self, device: torch.device, slice_s: float) -> None:
        self.device, self.slice_s = device, slice_s

    def __call__(self, work: Callable[[], Any]) -> float:
        work()
        times: list[float] = []
        while len(times) < FEWEST or sum(times) < self.slice_s:
            synchronise_device(self.device)
            start = time.perf_counter()
            work()
            synchronise_device(self.device)
            times.append(time.perf_counter() - start)
        return median(times)


def calls(job: dict[str, Any]) -> dict[str, Any]:
    """What a step costs however small it is: the engines on micro-batches of one node.

    ready_unix_s: when the first engine had compiled and loaded all that a step needs.
    """
    device = torch.device(job["device"])
    stopwatch = Stopwatch(device, job["slice_s"])
    result: dict[str, Any] = {"curves": {}}
    with tempfile.TemporaryDirectory(prefix="sagebench-") as folder:
        store = _tiny_store(Path(folder, "store"))
        for engine in job["engines"]:
            trial = _tiny_trial(engine, device)
            made = make_engine(trial, store, device)
            clock, progress = PhaseClock(), Progress(speaks=False)
            communicator = Communicator(RankEnvironment(), device)
            trainer = Trainer(trial, made, store.train, communicator, clock, progress)
            made.model.train()
            trainer.warm_up()
            synchronise_device(device)
            result.setdefault("ready_unix_s", time.time())
            batch = made.load(made.sample(next(trainer.order.micro_batches(1, 0))))
            step_s = stopwatch(lambda t=trainer, b=batch: t.micro_step(b, synchronise=True))
            (fl, f), (bl, b) = OPERATIONS[path_of(trial)]
            count = (fl + bl) * trial.layers + f + b
            kind = "operations_blocks" if engine == "blocks" else "operations_pyg"
            result["curves"][kind] = [(1.0, count / step_s)]
            update_s = stopwatch(trainer.optimizer.step)
            updated = parameter_tensors_updated(trial)
            result["curves"]["operations_optimizer"] = [(1.0, updated / update_s)]
            if engine != "blocks":
                result["loader_start_s"] = stopwatch(
                    lambda m=made, t=trainer: next(iter(m.stream(t.order.micro_batches(1, 0))))
                )
    return result


def _tiny_store(folder: Path) -> GraphStore:
    nodes = 1 << 10
    ring = np.arange(nodes)
    return write_store(
        folder,
        features=np.ones((nodes, 16), np.float32),
        labels=ring % 2,
        splits={"train": ring[:8], "valid": ring[8:16], "test": ring[16:24]},
        edge_index=np.stack([ring, np.roll(ring, 1)]),
        source=DATASET,
    )


def _tiny_trial(engine: str, device: torch.device) -> Trial:
    return Trial.from_json(
        {
            "dataset": DATASET,
            "engine": engine,
            "hidden_channels": 16,
            "batch_size": 1,
            "accumulation": 1,
            "fanout": [1] * 5,
            "device": device.type,
            "machine": "calibration",
        }
    )
