"""node2vec: vectors of the nodes by random walks and skip-gram, then a classifier on them.

With p = q = 1 it is DeepWalk. The vectors are those of the nodes of the training graph; an unseen
node gets one afterwards, in the whole graph: by the update that the GraphSAGE paper gives
DeepWalk's new nodes, all other vectors as they are, or by the mean of its neighbors' vectors.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sagebench.embedding.new_nodes import mean_of_neighbors, train_new_nodes
from sagebench.embedding.train import Settings, Training, warm_up
from sagebench.embedding.walks import reachable
from sagebench.engines.loaders import Loader
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Fanout, Trial
from sagebench.methods import minibatch
from sagebench.methods.new_nodes import Way

METHOD = "node2vec (Grover and Leskovec 2016; p = q = 1: DeepWalk), and a classifier on its vectors"
KEYS = [
    "layers",
    "hidden_channels",
    "dropout",
    "batch_size",
    "accumulation",
    "epochs",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "evaluate_every_epochs",
    "patience_evaluations",
    "precision",
    "continue_after_walltime",
]
OPTIONS = {
    "dimension": {
        "type": "whole",
        "low": 1,
        "example": 128,
        "default": 128,
        "help": "width of a node's vector",
    },
    "walk_length": {
        "type": "whole",
        "low": 1,
        "example": 40,
        "default": 40,
        "help": "steps of a walk",
    },
    "context": {
        "type": "whole",
        "low": 2,
        "example": 20,
        "default": 20,
        "at_most": "walk_length",
        "help": "nodes of a window on a walk, its center among them",
    },
    "walks_per_node": {
        "type": "whole",
        "low": 1,
        "example": 10,
        "default": 10,
        "help": "walks from each node in each pass",
    },
    "start_nodes": {
        "type": "whole",
        "low": 1,
        "example": 256,
        "default": 256,
        "help": "start nodes of one step of the vectors",
    },
    "walk_learning_rate": {
        "type": "number",
        "gt": 0,
        "example": 0.01,
        "default": 0.01,
        "help": "of the vectors",
    },
    "negatives": {
        "type": "whole",
        "low": 1,
        "example": 1,
        "default": 1,
        "help": "nodes drawn against each pair",
    },
    "passes": {
        "type": "whole",
        "low": 1,
        "example": 1,
        "default": 1,
        "help": "passes over all nodes as the start of walks",
    },
    "p": {
        "type": "number",
        "gt": 0,
        "example": 1,
        "default": 1.0,
        "help": "the larger, the rarer a walk's step back",
    },
    "q": {
        "type": "number",
        "gt": 0,
        "example": 1,
        "default": 1.0,
        "help": "the larger, the closer a walk stays to where it was",
    },
    "beside_features": {
        "type": "switch",
        "default": None,
        "help": "true: the classifier reads the features beside the vectors",
    },
}
RENAMED = {"start_nodes": "batch_size", "walk_learning_rate": "learning_rate"}
"""options that the settings of the walks call otherwise: a trial has these keys for its own"""


class Run(minibatch.Run):
    """A whole trial: the vectors, then mini-batch training of a perceptron on them.

    graph: the store as it is; `store` has the vectors for its features.
    """

    tests_sampled = False

    def __init__(self, trial: Trial, store: Path, *arguments: Any) -> None:
        classifying = replace(
            trial,
            method="minibatch",
            model="mlp",
            fanout=Fanout((0,) * trial.layers),
            sampling_workers=0,
            phase_window_steps=0,
        )
        super().__init__(classifying, store, *arguments)

    def build(self) -> None:
        self.open()
        warm_up(self.store.colptr, self.store.row, self._settings, self._threads, self.device)

    def run(self) -> None:
        self.begin_measuring()
        self.describe()
        with self.measuring(), self.clock("embedding"):
            self.vectors = self._trained_vectors()
        self.checkpoint.end()  # what follows is short, and the same again
        self.graph = self.store
        self._embed_others()
        self.store = self._with_vectors()
        self.build_engine()
        assert self.measured.parameters is not None
        self.measured.parameters += self.vectors.size
        self.train_and_test()

    @property
    def _settings(self) -> Settings:
        given: Mapping[str, Any] = {
            RENAMED.get(key, key): value for key, value in self.trial.options.items()
        }
        return Settings(**{one.name: given[one.name] for one in fields(Settings)})

    @property
    def _threads(self) -> int:
        return self.trial.threads_per_rank

    def _trained_vectors(self) -> np.ndarray:
        """float32 [N, dimension], on from a checkpoint where there is one."""
        store = self.store
        training = Training(
            store.colptr, store.row, self._settings, self.trial.seed, self._threads, self.device
        )
        saved, spent_s = self.checkpoint.read(), 0.0
        if saved is not None:
            state, own = saved
            training.restore(state["training"])
            spent_s, self.used_s, self.energy_j = state["spent_s"], state["used_s"], own["energy_j"]
            self.measured.start_to_first_step_s = state["start_to_first_step_s"]
            self.peak.raise_to(own["peaks"])
            self.progress.say(f"going on in pass {training.pass_number}, batch {training.batch}")
        left = training.batches_left
        batches = iter(self.progress.over(range(left), left, "vectors"))
        began = saved_at = time.perf_counter()

        def save() -> None:
            """Write a checkpoint; the clock stands meanwhile."""
            nonlocal spent_s, began, saved_at
            spent_s += time.perf_counter() - began
            self.count_energy()
            self.checkpoint.write(
                alike={
                    "training": training.state(),
                    "spent_s": spent_s,
                    "used_s": self.elapsed_s,
                    "start_to_first_step_s": self.measured.start_to_first_step_s,
                },
                own={"peaks": self.peak.read(), "energy_j": self.energy_j},
            )
            began = saved_at = time.perf_counter()

        def between(loss: float | None) -> None:
            next(batches)
            if loss is not None:
                self.note_first_step()
            if self.checkpoint.wanted and time.perf_counter() - saved_at > minibatch.SAVE_EVERY_S:
                save()
            self.check_deadline()

        training.run(between)
        self.embedding_s = spent_s + time.perf_counter() - began
        if self.checkpoint.wanted and left:
            save()
        self.progress.say(f"vectors of {store.num_nodes:,} nodes in {self.embedding_s:.1f} s")
        return torch.as_tensor(training.model.vectors).cpu().numpy()

    def _embed_others(self) -> None:
        """Vectors of the nodes that no walk came to: of the graph's own by that graph, then of the
        unseen ones, in the whole graph."""
        graph, whole = self.graph, self.graph.whole
        trained = reachable(graph.colptr, graph.row)
        # what says nothing of a node: the mean of all trained vectors, in a product without copies
        self.mean_vector = trained.astype(np.float32) @ self.vectors / (int(trained.sum()) or 1)
        self.vectors[~trained] = self.mean_vector
        if whole is not graph and graph.unseen is not None:
            self._frozen_update(whole, graph.unseen)

    def _frozen_update(self, graph: GraphStore, nodes: np.ndarray) -> None:
        options: Mapping[str, Any] = self.trial.options
        train_new_nodes(
            self.vectors, nodes, graph.colptr, graph.row, seed=self.trial.seed,
            negatives=options["negatives"], p=options["p"], q=options["q"], threads=self._threads,
        )  # fmt: skip

    def _with_vectors(self) -> GraphStore:
        """The store whose features are the vectors, behind its own where the trial asks for it."""
        features = self.vectors
        if self.trial.options.get("beside_features"):
            features = np.concatenate([self.graph.features, features], axis=1)
        return replace(self.graph, features=features)

    def ways_to_embed(self, graph: GraphStore, nodes: np.ndarray) -> dict[str, Way]:
        """Both on the CPU's threads, whatever the device of the trial."""
        evaluator, weights = self.evaluator, self.best.weights

        def accuracy() -> float:
            kept = "host" if self.device.type == "cuda" else "mapped"
            evaluator.loader = Loader(self.trial, self._with_vectors(), self.device, kept)
            return evaluator.accuracy(weights, nodes, "full")

        def mean() -> None:
            mean_of_neighbors(
                self.vectors, nodes, graph.colptr, graph.row, self.mean_vector, self._threads
            )

        return {
            "frozen_update": Way(lambda: self._frozen_update(graph, nodes), accuracy, "cpu"),
            "mean_of_neighbors": Way(mean, accuracy, "cpu"),
        }
