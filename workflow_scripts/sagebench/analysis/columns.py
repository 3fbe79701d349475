"""The columns of the tables: name, type, where the value lies in an outcome, and its meaning.

A dotted source is a path into outcome.json, with the column's own name behind a last dot; ""
marks a column that tables.py works out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, get_args, get_type_hints

import pyarrow as pa

from sagebench.grid.configuration import types
from sagebench.grid.trial import FIELD_NAMES, Fanout, Trial

STR, INT, REAL, FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()


class Column(NamedTuple):
    """One column of a table; units stand in the name (_s, _bytes, _per_s, _j, _gib)."""

    name: str
    type: pa.DataType
    source: str
    meaning: str

    @property
    def path(self) -> str:
        return self.source + self.name if self.source.endswith(".") else self.source


TYPES = {str: STR, int: INT, float: REAL, bool: FLAG, dict[str, Any]: STR, Fanout: STR}
AS_TEXT = ("dataset", "fanout", "options")
"""keys of a trial whose values are structured"""
OTHER_KEYS = {
    "dataset": "the data set's specification, as JSON; without its split_seed",
    "device": "cpu or cuda",
    "machine": "the site's name for the machine",
    "options": "keys of the model's or the method's own, as JSON",
    "seed": "seed of the repeat",
}
"""keys of a trial that a configuration does not give by these names"""


def _values(names: Iterable[str]) -> list[Column]:
    """Columns of keys of a trial: typed as there, explained as in a configuration."""
    keys, kinds = types().Values.model_fields, get_type_hints(Trial)
    found = []
    for name in names:
        kind = next(TYPES[one] for one in (kinds[name], *get_args(kinds[name])) if one in TYPES)
        meaning = OTHER_KEYS.get(name) or keys[name].description
        found.append(Column(name, kind, "" if name in AS_TEXT else name, meaning))
    return found


_FIRST = [name for name in FIELD_NAMES[: FIELD_NAMES.index("placement")] if name != "seed"]
_FIRST += ["seed", "sampled_test_nodes"]
_LATER = ["compile", *(name for name in FIELD_NAMES if name not in [*_FIRST, "compile"])]
FIRST_VALUES, LATER_VALUES = _values(_FIRST), _values(_LATER)
"""the later ones behind the other columns, so that no column moves"""
TRIAL_VALUES = [*FIRST_VALUES, *LATER_VALUES]

PHASES = {
    **dict.fromkeys(("sampling", "data", "forward", "backward", "waiting"), "a micro-step"),
    **dict.fromkeys(("synchronisation", "optimizer"), "an optimizer step"),
}
"""what is timed in a window behind the timed epochs, and what its median is of"""
PHASE_COLUMNS = [
    Column(f"phase_{one}_s", REAL, f"phases.{one}_s", f"median {per}, overlap off; ranks' mean")
    for one, per in PHASES.items()
]

PREDICTION_COLUMNS = [
    Column("predicted_peak_bytes", REAL, "memory.peak_bytes", "peak_memory_bytes as predicted"),
    Column("predicted_peak_low_bytes", REAL, "memory.low_bytes", "lower end of 90 % interval"),
    Column("predicted_peak_high_bytes", REAL, "memory.high_bytes", "upper end of 90 % interval"),
    Column("predicted_epoch_s", REAL, "time.epoch_s", "epoch_time_s as predicted"),
    Column("predicted_epoch_low_s", REAL, "time.low_s", "lower end of the 90 % interval"),
    Column("predicted_epoch_high_s", REAL, "time.high_s", "upper end of the 90 % interval"),
    Column("predicted_memory_limit_bytes", REAL, "memory.limit_bytes", "what a rank may use"),
    Column("out_of_memory_chance", REAL, "memory.", "chance within an epoch"),
    Column("prediction_source", STR, "time.source", "basis: roofline, pilot, outcomes"),
    Column("prediction_model", STR, "model", "digest of the predictions' code"),
]
"""Predictions from before the trial ran; sources are paths into prediction.json."""

TRIAL_COLUMNS = [
    Column("trial_id", STR, "", "folder of the trial under results/trials"),
    Column("experiments", STR, "", "experiments that ask for the trial, joined by ;"),
    Column("axes", STR, "", "what those experiments study, joined by ;"),
    Column("status", STR, "", "how the trial ended, or why it has no outcome"),
    Column("missing_because", STR, "", "why there is no outcome"),
    Column("log", STR, "", "log of the last failed attempt"),
    Column("dataset_name", STR, "", "the data set's name"),
    Column("total_fanout", REAL, "", "product of the non-zero fanouts; empty with -1 (all)"),
    Column("effective_batch_size", INT, "", "batch_size x accumulation x ranks"),
    *FIRST_VALUES,
    Column("started_at", STR, "started_at", "UTC"),
    Column("finished_at", STR, "finished_at", "UTC"),
    Column("attempts", INT, "attempts", "attempts until the outcome"),
    Column("reason_rank", INT, "reason.rank", "rank that ended first"),
    Column("reason_phase", STR, "reason.phase", "phase it was in"),
    Column("reason_message", STR, "reason.message", "error message of that rank"),
    Column("limit_kind", STR, "reason.limit.kind", "limit that applied"),
    Column("limit_value", REAL, "reason.limit.value", "its value, in limit_unit"),
    Column("limit_unit", STR, "reason.limit.unit", "GiB or s"),
    Column(
        "epoch_time_s",
        REAL,
        "",
        "epoch_median_s, or first_epoch_s if that is all there is; of node2vec a pass of its walks",
    ),
    Column("epoch_time_is_first", FLAG, "", "epoch_time_s is the first epoch's, warm-up included"),
    Column("epoch_time_outlier", FLAG, "", "far from the other repeats (flagged, not dropped)"),
    Column("speed_up", REAL, "", "against the fewest ranks; empty where oversubscribed"),
    Column("efficiency", REAL, "", "share of the ideal speed-up"),
    Column("start_to_first_step_s", REAL, "timing.", "start-up"),
    Column("first_epoch_s", REAL, "timing.", "first epoch, warm-up included"),
    Column("epoch_median_s", REAL, "timing.", "median epoch without the first"),
    Column("epoch_min_s", REAL, "timing.", "fastest of them"),
    Column("epoch_max_s", REAL, "timing.", "slowest of them"),
    Column("epochs_timed", INT, "timing.", "number of those epochs"),
    Column("epochs_run", INT, "", "epochs that were trained"),
    Column("epochs_resumed", INT, "", "epochs continued after an interruption"),
    Column("steps_per_epoch", INT, "timing.", "optimizer steps an epoch"),
    Column("seeds_per_s", REAL, "timing.", "training nodes a second"),
    Column("seeds_per_s_per_device", REAL, "timing.", "the same, of one device"),
    Column("edges_per_s", REAL, "timing.", "sampled edges a second"),
    Column("training_s", REAL, "timing.", "all epochs and embedding_s, evaluation not included"),
    Column("evaluation_s", REAL, "timing.", "all evaluations"),
    Column("total_s", REAL, "timing.", "the whole trial"),
    Column("phase_micro_steps", INT, "phases.micro_steps", "micro-steps behind the phases"),
    *PHASE_COLUMNS,
    Column("peak_memory_bytes", REAL, "", "CPU: host private; CUDA: reserved; the fullest rank"),
    Column("memory_kind", STR, "", "which of the counters below peak_memory_bytes is"),
    Column("peak_allocated_bytes", REAL, "memory.", "CUDA allocator, allocated"),
    Column("peak_reserved_bytes", REAL, "memory.", "CUDA allocator, reserved"),
    Column("peak_device_used_bytes", REAL, "memory.", "no peak: by all processes at epochs' ends"),
    Column("peak_host_private_bytes", REAL, "memory.", "a rank's own memory"),
    Column("energy_nvml_j", REAL, "energy.nvml_j", "GPU energy by NVML's counter"),
    *PREDICTION_COLUMNS,
    Column("final_loss", REAL, "", "training loss of the last epoch"),
    Column("best_epoch", INT, "accuracy.", "epoch of the chosen model"),
    Column("best_validation_accuracy", REAL, "accuracy.best_validation", "its validation"),
    Column("validation_method", STR, "accuracy.", "full or sampled"),
    Column("test_accuracy_full", REAL, "accuracy.test_full", "chosen model, every neighbor"),
    Column("test_accuracy_sampled", REAL, "accuracy.test_sampled", "chosen model, own fanout"),
    Column("test_sampled_nodes", INT, "accuracy.", "nodes it is measured on"),
    Column(
        "test_sampled_standard_error", REAL, "accuracy.", "of not testing all; 0 where all were"
    ),
    Column("nodes_per_hop", STR, "", "new nodes a hop and micro-batch (mean), seeds first"),
    Column("edges_per_hop", STR, "", "sampled edges a hop and micro-batch (mean)"),
    Column("parameters", INT, "parameters", "trainable parameters"),
    Column("oversubscribed", FLAG, "oversubscribed", "more ranks x threads than cores"),
    Column("cores", INT, "cores", "cores the trial could use"),
    Column("store_checksum", STR, "store.checksum", "checksum of the graph store"),
    Column("num_nodes", INT, "store.", "nodes of the graph"),
    Column("num_edges", INT, "store.", "directed edges of the graph"),
    Column("num_features", INT, "store.", "features a node"),
    Column("num_classes", INT, "store.", "classes"),
    Column("train_nodes", INT, "store.", "training nodes"),
    Column("valid_nodes", INT, "store.", "validation nodes"),
    Column("test_nodes", INT, "store.", "test nodes"),
    Column("git_commit", STR, "provenance.", "commit that ran"),
    Column("git_dirty", FLAG, "provenance.", "with uncommitted changes"),
    Column("image_digest", STR, "provenance.", "container image"),
    Column("expandable_segments", FLAG, "provenance.", "GPU memory in segments that may grow"),
    Column("command", STR, "provenance.", "command line of the trial's launcher"),
    Column("hosts", STR, "", "hosts of the ranks"),
    Column("device_names", STR, "", "devices of the ranks (CPU model on CPU)"),
    Column("device_uuids", STR, "", "UUIDs of the GPUs"),
    Column("drivers", STR, "", "GPU drivers"),
    Column("cpu_models", STR, "", "CPU models"),
    Column("load_1m", REAL, "", "highest load average of a rank's host at the start"),
    Column("device_memory_bytes", REAL, "", "memory of the smallest GPU"),
    Column("memory_total_bytes", REAL, "", "memory of the smallest host"),
    Column("slurm", STR, "", "Slurm's ids of rank 0, as JSON"),
    *LATER_VALUES,
    Column("placement_chosen", STR, "placement.chosen", "device, host or mapped; of blocks"),
    Column("kernels_used", STR, "kernels_used", "Triton's version, or plain and why"),
    Column("last_hop", STR, "last_hop", "sampled, or from a table of aggregated features"),
    Column("num_alloc_retries", INT, "", "allocator retries after freeing its cache, all ranks"),
    Column("num_ooms", INT, "", "out-of-memory errors of the allocator, all ranks"),
    Column("embedding_s", REAL, "timing.", "training of node2vec's vectors"),
    Column("setting", STR, "", "transductive or inductive; empty without unseen nodes"),
    Column("unseen", REAL, "", "share of the test nodes that is unseen"),
    Column("unseen_by", STR, "", "node, or group: whole groups are unseen"),
    Column("split_seed", INT, "", "seed of the draw of unseen nodes, and of a drawn split"),
    Column("unseen_nodes", INT, "store.", "unseen nodes"),
    Column("accuracy_unseen", REAL, "accuracy.unseen", "on the unseen nodes, every neighbor"),
]

SLURM_COLUMNS = [
    Column("slurm_job_id", STR, "slurm_job_id", "Slurm's number of the last attempt's job"),
    Column("slurm_state", STR, "state", "final job state in Slurm"),
    Column("slurm_queue_s", REAL, "queue_s", "how long it waited in the queue"),
    Column("slurm_elapsed_s", REAL, "elapsed_s", "how long it ran"),
    Column("slurm_nodes", STR, "node_names", "its nodes, as Slurm writes them"),
    Column("slurm_gpus_allocated", INT, "gpus_allocated", "GPUs allocated; all of whole nodes"),
    Column("slurm_energy_j", REAL, "energy_j", "of its nodes; empty where the site records none"),
    Column("slurm_gpu_hours_used", REAL, "gpu_hours_used", "ranks x time, of the last attempt"),
    Column("slurm_gpu_hours_allocated", REAL, "gpu_hours_allocated", "GPUs given x its time"),
    Column("slurm_gpu_hours_allocated_total", REAL, "", "the same, of all attempts"),
    Column("slurm_missing_because", STR, "reason", "why Slurm's accounting has no row"),
]
"""on a cluster only, beside what was measured; sources are columns of accounting.csv"""

EPOCH_COLUMNS = [
    Column("trial_id", STR, "", "folder of the trial under results/trials"),
    Column("epoch", INT, "epoch", "1 is the first, with warm-up"),
    Column("time_s", REAL, "time_s", "training time, evaluation not included"),
    Column("time_outlier", FLAG, "", "far from the trial's other epochs (flagged, not dropped)"),
    Column("steps", INT, "steps", "optimizer steps"),
    Column("micro_batches", INT, "micro_batches", "micro-batches over all ranks"),
    Column("loss", REAL, "loss", "mean training loss a node"),
    Column("train_accuracy", REAL, "train_accuracy", "accuracy on the training nodes, dropout on"),
    Column("seeds", INT, "seeds", "training nodes seen"),
    Column("nodes", INT, "nodes", "sampled nodes"),
    Column("edges", INT, "edges", "sampled edges"),
    Column("learning_rate", REAL, "learning_rate", "learning rate after scaling"),
    Column("sampling_wait_s", REAL, "sampling_wait_s", "time the training waited for samples"),
    Column("validation_accuracy", REAL, "validation_accuracy", "where it was evaluated"),
    Column("evaluation_s", REAL, "evaluation_s", "time of that evaluation"),
    Column("resumed", FLAG, "resumed", "continued after an interruption"),
]

NEW_NODE_COLUMNS = [
    Column("trial_id", STR, "", "folder of the trial under results/trials"),
    Column("way", STR, "way", "forward, frozen_update or mean_of_neighbors"),
    Column("device", STR, "device", "cuda or cpu, where it is done"),
    Column("nodes", INT, "nodes", "unseen nodes that are embedded at once"),
    Column("time_s", REAL, "time_s", "median of the repeats"),
    Column("low_s", REAL, "low_s", "fastest of them"),
    Column("high_s", REAL, "high_s", "slowest of them"),
    Column("repeats", INT, "repeats", "their number"),
    Column("peak_memory_bytes", REAL, "peak_memory_bytes", "as the trial's, while it embeds"),
    Column("energy_j", REAL, "energy_j", "GPU energy of one time, by NVML's counter"),
    Column("accuracy", REAL, "accuracy", "on these nodes, of the most"),
]
"""of trials in an inductive setting"""
