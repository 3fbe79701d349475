"""The outcome of a trial: what was measured and how it ended. One reader and one writer.

Standard library only: the launcher and Snakemake's parse need nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

from sagebench.errors import UserError
from sagebench.files import read_json, write_json

SCHEMA = 1
"""of outcome.json"""
MEMORY_COUNTER = {"cpu": "peak_host_private_bytes", "cuda": "peak_reserved_bytes"}
"""by device: the counter of `PeakBytes` that is its peak memory"""

Values = Mapping[str, object]
Json = TypeVar("Json", bound="FromJson")


class Status(str, Enum):
    """Status of a trial."""

    COMPLETED = "completed"
    OUT_OF_MEMORY = "out_of_memory"
    TIME_LIMIT = "time_limit"
    DIVERGED = "diverged"
    # Ends of an attempt that leave no outcome:
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    CONTINUES = "continues"  # with a checkpoint for the next attempt
    # Of a trial without a readable outcome:
    TO_BE_CONTINUED = "to_be_continued"
    DAMAGED = "damaged"
    OUTCOME_REMOVED = "outcome_removed"
    NOT_FINISHED = "not_finished"
    NOT_STARTED = "not_started"
    QUEUED = "queued"
    RUNNING = "running"
    SKIPPED = "skipped"  # predicted to run out of memory, and not run

    def __str__(self) -> str:
        return self.value

    @property
    def words(self) -> str:
        return self.value.replace("_", " ")


MEASURED_ENDS = (Status.COMPLETED, Status.OUT_OF_MEMORY, Status.TIME_LIMIT, Status.DIVERGED)
"""the ends that are results and leave an outcome; anything else is a failure"""


class FromJson:
    """Base of the records: from a JSON object, whose keys of other versions are left out. Fields
    may be records, lists of them, or a Status."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @classmethod
    def from_json(cls: type[Json], values: Values) -> Json:
        """Raises TypeError where a key is missing that every version wrote."""
        given: dict[str, Any] = {
            name: values[name] for name in cls.__dataclass_fields__ if name in values
        }
        typed = _typed(cls)  # type: ignore[arg-type]  # a class has a hash
        for name, (made_of, several) in typed.items():
            value = given.get(name)
            if several:
                given[name] = [made_of(one) for one in value or []]
            elif value is not None:
                given[name] = made_of(value)
        return cls(**given)


@cache
def _typed(kind: type) -> dict[str, tuple[Callable[[Any], Any], bool]]:
    """Constructors of the fields that hold a record or a status, and whether they hold a list."""
    found = {}
    for name, hint in get_type_hints(kind).items():
        for one in (hint, *get_args(hint)):
            # To Python 3.10 list[float] is a type.
            plain = get_origin(one) is None and isinstance(one, type)
            if plain and issubclass(one, FromJson | Status):
                found[name] = getattr(one, "from_json", one), get_origin(hint) is list
    return found


@dataclass(frozen=True)
class Limit(FromJson):
    """The limit reached: `memory_limit` (the trial's own cap), `device_memory`, `host_memory` or
    `walltime`; its value in `unit` (GiB or s), None where it is not known."""

    kind: str
    value: float | None
    unit: str


@dataclass(frozen=True)
class Reason(FromJson):
    """Why a trial ended early, on which rank, in which phase of its work."""

    rank: int
    phase: str
    message: str
    limit: Limit | None = None


@dataclass(frozen=True)
class Epoch(FromJson):
    """One epoch over all ranks; times are the slowest rank's.

    time_s: of training, without evaluation; sampling_wait_s: therein, for samples. loss: mean over
    the seed nodes. nodes_per_hop, edges_per_hop: mean of a micro-batch, the seed nodes first.
    resumed: whether it was the first epoch of a job that continued another.
    """

    epoch: int
    time_s: float
    micro_batches: int
    loss: float
    train_accuracy: float
    seeds: int
    nodes: int
    edges: int
    nodes_per_hop: list[float]
    edges_per_hop: list[float]
    sampling_wait_s: float
    resumed: bool
    steps: int
    learning_rate: float
    validation_accuracy: float | None = None
    evaluation_s: float | None = None


@dataclass(frozen=True)
class StoreFacts(FromJson):
    """The graph store that a trial ran on; num_edges: directed."""

    name: str
    checksum: str
    num_nodes: int
    num_edges: int
    num_features: int
    num_classes: int
    train_nodes: int
    valid_nodes: int
    test_nodes: int
    unseen_nodes: int | None = None


@dataclass(frozen=True)
class Timing(FromJson):
    """Seconds of a trial. epoch_median_s, _min_s, _max_s: of the epochs_timed epochs that follow
    the first, and the first of a job that continued another: those warm caches and allocators.
    training_s: all epochs, and embedding_s, the vectors of node2vec."""

    start_to_first_step_s: float | None = None
    first_epoch_s: float | None = None
    epoch_median_s: float | None = None
    epoch_min_s: float | None = None
    epoch_max_s: float | None = None
    epochs_timed: int | None = None
    steps_per_epoch: int | None = None
    seeds_per_s: float | None = None
    seeds_per_s_per_device: float | None = None
    edges_per_s: float | None = None
    training_s: float | None = None
    embedding_s: float | None = None
    evaluation_s: float | None = None
    test_s: float | None = None
    total_s: float | None = None


@dataclass(frozen=True)
class PeakBytes(FromJson):
    """Memory of the fullest rank; None where its device has no such counter.

    peak_device_used_bytes: no peak, but the most that CUDA told at the end of an epoch of what is
    used of the whole GPU, contexts and other processes included.
    """

    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    peak_device_used_bytes: int | None = None
    peak_host_private_bytes: int | None = None

    def of_device(self, device: object) -> int | None:
        """Peak by the memory counter of `cuda` or `cpu`, bytes; None of anything else."""
        counter = MEMORY_COUNTER.get(str(device))
        return getattr(self, counter) if counter else None


@dataclass(frozen=True)
class Accuracy(FromJson):
    """best_epoch: whose weights were chosen by validation, and tested. unseen: on the unseen ones
    of the test nodes, over the full graph, where the data set has some."""

    best_epoch: int | None = None
    best_validation: float | None = None
    validation_method: str | None = None
    test_full: float | None = None
    test_sampled: float | None = None
    test_sampled_nodes: int | None = None
    test_sampled_standard_error: float | None = None
    unseen: float | None = None


@dataclass(frozen=True)
class NewNodes(FromJson):
    """Seconds to embed so many new nodes at once.

    way: `forward`, the model's; `frozen_update` or `mean_of_neighbors` of node2vec. device: where
    that is done. time_s, low_s, high_s: median, least and most of the repeats. peak_memory_bytes:
    of the process, by the memory counter of that device. energy_j: of one time on a GPU. accuracy:
    on these nodes, where they are the most.
    """

    way: str
    nodes: int
    device: str
    time_s: float
    low_s: float
    high_s: float
    repeats: int
    peak_memory_bytes: int | None = None
    energy_j: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class HopMeans(FromJson):
    """Nodes and edges of each hop of a micro-batch, mean over the epochs, the seed nodes first."""

    nodes_per_hop: list[float]
    edges_per_hop: list[float]


@dataclass(kw_only=True)
class Measured(FromJson):
    """Measurements of a trial; None if an early end left it unmeasured.

    kernels_used: the Triton kernels' version, or plain and why. placement: where graph and features
    were kept. last_hop: `sampled`, or `table` where every neighbor of the last hop came from a
    table of aggregated features. phases: median seconds, overlap off, mean of the ranks. energy:
    nvml_j. new_nodes: of a trial in an inductive setting. ranks: process, device, memory and host
    of each.
    """

    store: StoreFacts | None = None
    placement: dict[str, object] | None = None
    last_hop: str | None = None
    kernels_used: str | None = None
    parameters: int | None = None
    cores: int | None = None
    oversubscribed: bool | None = None
    epochs: list[Epoch] = field(default_factory=list)
    timing: Timing | None = None
    phases: dict[str, object] | None = None
    memory: PeakBytes | None = None
    energy: dict[str, object] | None = None
    accuracy: Accuracy | None = None
    new_nodes: list[NewNodes] = field(default_factory=list)
    ranks: list[dict[str, object]] = field(default_factory=list)


@dataclass(kw_only=True)
class Outcome(Measured):
    """The one record of a trial, `outcome.json`.

    trial: its values, as trial.json has them. attempts: how many it took. provenance: commit,
    image, command and versions.
    """

    trial_id: str
    trial: dict[str, object]
    status: Status
    reason: Reason | None = None
    started_at: str | None = None
    finished_at: str | None = None
    attempts: int | None = None
    sample: HopMeans | None = None
    provenance: dict[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Above the measurements stands what they are of, for who opens the file."""
        above = ("trial_id", "trial", "status", "reason", "started_at", "finished_at", "attempts")
        return {"schema": SCHEMA, **dict.fromkeys(above), **asdict(self)}

    @property
    def peak_memory_bytes(self) -> int | None:
        """Peak by the memory counter of the trial's device, bytes."""
        return None if self.memory is None else self.memory.of_device(self.trial.get("device"))

    @property
    def epoch_s(self) -> float | None:
        """Seconds of a typical epoch, or of the first where no other was timed; of node2vec, of a
        pass of its walks over all nodes."""
        timing = self.timing
        if timing is None:
            return None
        if timing.embedding_s is not None:
            options: Any = self.trial["options"]
            return timing.embedding_s / options["passes"]
        return timing.first_epoch_s if timing.epoch_median_s is None else timing.epoch_median_s


class Damaged(UserError):
    """An outcome that cannot be read: cut short by a full disk or a copy, or another's."""

    remedy = (
        "delete the outcome, and call the run again, which measures its trial once more, or copy "
        "over it an attempts/N/outcome.json beside it that is whole"
    )

    def __init__(self, path: Path, why: object) -> None:
        super().__init__(f"{path} is damaged (not a readable outcome: {why}): {self.remedy}")


def read_outcome(path: Path, trial_id: str | None = None) -> Outcome:
    """The outcome in `path`, of the trial `trial_id` where that is given. Raises Damaged."""
    try:
        values = read_json(path)
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise ValueError(f"not of schema {SCHEMA}")
        if trial_id is not None and values.get("trial_id") != trial_id:
            raise ValueError(f"it belongs to trial {values.get('trial_id')}, not to {trial_id}")
        if values.get("status") not in MEASURED_ENDS:
            raise ValueError(f"unknown status {values.get('status')!r}")
        return Outcome.from_json(values)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise Damaged(path, error) from None


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Whole or not at all."""
    write_json(path, outcome.to_json())
