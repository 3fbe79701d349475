"""A trial: every value that decides what is run, and the identity that follows from them.

Standard library only: the launcher on a compute node reads trials too.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sagebench import registry
from sagebench.errors import UserError
from sagebench.files import read_json
from sagebench.registry import one_of, recorded

# What an id leaves out of a data set: the values that it had before a key existed, as a trial's
# defaults (NEVER EDIT ONE), and the keys that say where the data lies, not what it is.
DATASET_INTRODUCTION_DEFAULTS: Mapping[str, object] = MappingProxyType(
    {"scale": 1, "seed": 0, "unseen_by": "node"}
)
DATASET_WHEREABOUTS = frozenset({"archive", "sha256"})
UNSEEN_KEYS = ("setting", "unseen", "unseen_by")
"""of a data set, whatever its source: what training does not see of it"""

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "aggregator": ("mean", "sum", "max"),
        "optimizer": ("adam",),
        "learning_rate_scaling": ("linear", "sqrt", "none"),
        "validation": ("full", "sampled"),
        "precision": ("fp32", "tf32", "bf16"),
        "placement": ("auto", "device", "host"),
        "device": ("cpu", "cuda"),
        "kernels": ("auto", "plain"),
    }
)
"""the words that a trial's values may be, where they are words"""
REGISTERED = ("engine", "method", "model", "sampler")
"""the values that name a module"""
HEEDED_BY_ALL = ("method", "seed", "threads_per_rank", "memory_limit_gib", "walltime_min")
"""keys that every method has a use for"""


class Fanout(tuple[int, ...]):
    """Neighbors a hop, from the seed nodes outward, one hop a layer; -1: every one, 0: none."""

    @classmethod
    def parse(cls, text: str) -> Fanout:
        """Parse "15,10,-1". Raises ValueError for anything else."""
        return cls(int(hop) for hop in text.split(","))

    def __str__(self) -> str:
        """ "15,10,-1", as tables have it."""
        return ",".join(map(str, self))

    @property
    def label(self) -> str:
        """ "15·10·all", for people."""
        return "·".join("all" if hop == -1 else str(hop) for hop in self)

    @property
    def readable(self) -> str:
        """ "15.10.all", as in a trial's id."""
        return self.label.replace("·", ".")

    @property
    def total(self) -> float | None:
        """Product of the hops that take any; None where one takes every neighbor."""
        return None if -1 in self else float(math.prod(hop for hop in self if hop))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training run. Two trials with equal values are the same trial, whoever asks for it.

    Not part of a trial: the walltime asked for, the image, the commit. They are requested or
    recorded, and change nothing of what is run.

    NEVER EDIT OR REMOVE A DEFAULT: an id leaves out what is at its default, and every id that
    exists was made with them. A new field gets the value that trials had before it existed, so that
    no id changes. What a configuration falls back to today is study_types.py's business.
    """

    dataset: dict[str, object]  # its spec, e.g. {"name": "pubmed", "source": "pubmed", ..}
    engine: str = "blocks"  # a module of sagebench.engines
    sampler: str = "sagebench"  # a module of sagebench.sampling; sagebench is `uniform`
    layers: int = 5
    hidden_channels: int = 256
    dropout: float = 0.5
    aggregator: str = "mean"  # mean | sum | max
    batch_size: int = 128  # seeds in one micro-batch of one rank
    accumulation: int = 5  # micro-batches in one optimizer step of one rank
    fanout: Fanout = field(default=Fanout((15, 10, 10, 10, 10)))  # neighbors a hop
    ranks: int = 1  # processes, one a device
    threads_per_rank: int = 1
    sampling_workers: int = 1  # background samplers of one rank
    epochs: int = 10
    optimizer: str = "adam"  # adam
    learning_rate: float = 0.001  # of one rank, before scaling
    learning_rate_scaling: str = "linear"  # linear | sqrt | none, with the number of ranks
    evaluate_every_epochs: int = 5
    patience_evaluations: int | None = 10  # without a better score, before stopping early
    validation: str = "full"  # full | sampled
    phase_window_steps: int = 10  # micro-steps of the window that times the phases, overlap off
    seed: int = 0
    precision: str = "fp32"  # fp32 | tf32 | bf16
    device: str = "cuda"  # cpu | cuda
    machine: str  # the site's label
    memory_limit_gib: float | None = None  # cap of one rank's memory; None: the device's own
    placement: str = "auto"  # auto | device | host: of graph and features, and of the sampling
    compile: bool = False  # dense parts by torch.compile
    sampled_test_nodes: int | None = None  # of the test by sampling; None: all
    profile_steps: int = 0  # micro-steps that are profiled behind everything else
    model: str = "sage"  # a module of sagebench.models
    options: dict[str, object] = field(default_factory=dict)  # of model and method, as they declare
    kernels: str = "auto"  # auto | plain: Triton's on a GPU where they run, or none
    method: str = "minibatch"  # a module of sagebench.methods; what it does not heed: as above
    weight_decay: float = 0.0  # Adam's, of all parameters

    def __post_init__(self) -> None:
        object.__setattr__(self, "fanout", Fanout(self.fanout))

    @property
    def in_minibatches(self) -> bool:
        """Whether it is mini-batch training, whose samples and steps can be probed and piloted."""
        return self.method == INTRODUCTION_DEFAULTS["method"]

    @property
    def law(self) -> str:
        """The law by which the sampler draws neighbors."""
        return registry.declared("sampler", self.sampler)["LAW"]

    @property
    def samples_where_placed(self) -> bool:
        """Whether the engine samples in threads where graph and features are placed, and not in
        PyG's loader processes on the host."""
        return registry.declared("engine", self.engine)["LOADS"] == "threads"

    @property
    def asks_for_kernels(self) -> bool:
        """Whether it is to run a GPU's kernels, where there are any."""
        if self.device != "cuda" or self.kernels != "auto" or not self.in_minibatches:
            return False
        return registry.declared("engine", self.engine).get("HAS_KERNELS", False)

    @property
    def id(self) -> str:
        """Readable values and 10 hex digits of the hash that makes it unique, [A-Za-z0-9._-]+."""
        return f"{self.readable}-{digest(self.identity(), 10)}"

    @property
    def readable(self) -> str:
        """Readable part of the id, at most 80 characters."""
        setting = self.dataset.get("setting")
        data = f"{self.dataset['name']}-{setting}" if setting else self.dataset["name"]
        if not self.in_minibatches:
            return f"{data}-{self.method}-r{self.ranks}-s{self.seed}"[:80]
        model = "" if self.model == INTRODUCTION_DEFAULTS["model"] else f"-{self.model}"
        return (
            f"{data}{model}-{self.engine}-b{self.batch_size}x{self.accumulation}"
            f"-f{self.fanout.readable}-r{self.ranks}-s{self.seed}"
        )[:80]

    def identity(self) -> dict[str, object]:
        """The values that differ from the introduction-time defaults."""
        given = {name: getattr(self, name) for name in FIELD_NAMES}
        values = {key: one for key, one in given.items() if one != INTRODUCTION_DEFAULTS.get(key)}
        return {**values, "dataset": dataset_identity(self.dataset)}

    def to_json(self) -> dict[str, object]:
        """Every value, as plain JSON types."""
        return {**asdict(self), "fanout": list(self.fanout)}

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Trial:
        """The trial that `to_json` wrote; a field younger than the file has its introduction value.

        Raises ValueError for a key that is missing without such a value, or not known.
        """
        try:
            given: dict[str, Any] = {**values}
            return cls(**given)
        except TypeError as error:
            raise ValueError(f"not a trial: {error}") from None


FIELD_NAMES = tuple(one.name for one in fields(Trial))
_PLAIN = Trial(dataset={}, machine="")
INTRODUCTION_DEFAULTS: Mapping[str, object] = MappingProxyType(
    {name: getattr(_PLAIN, name) for name in FIELD_NAMES if name not in ("dataset", "machine")}
)


def heeds(method: str, key: str) -> bool:
    """Whether a method has a use for a key of a configuration that is no option."""
    used = registry.declared("method", method).get("KEYS")
    return used is None or key in HEEDED_BY_ALL or key in used


def unheeded(method: str) -> set[str]:
    """The keys of a trial that a method has no use for."""
    always = {"dataset", "device", "machine", "options", "ranks"}
    return {key for key in FIELD_NAMES if key not in always and not heeds(method, key)}


def read_trial(path: Path) -> Trial:
    """The trial in `path`; raises UserError where no trial can be made of it, or none be run."""
    try:
        trial = Trial.from_json(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read as a trial ({error}): delete it, and call the run "
            "again, which writes it anew"
        ) from None
    named = {kind: [recorded(name) for name in registry.names(kind)] for kind in REGISTERED}
    for name, options in {**named, **CHOICES}.items():
        if (value := getattr(trial, name)) not in options:
            raise UserError(f"{path}: {name} is {value!r}: write {one_of(value, options)}")
    return trial


def dataset_identity(spec: Mapping[str, object]) -> dict[str, object]:
    """Identity of a data set: its keys without paths and without defaults."""
    given = {key: value for key, value in spec.items() if value is not None}
    return {
        key: value
        for key, value in given.items()
        if key not in DATASET_WHEREABOUTS and value != DATASET_INTRODUCTION_DEFAULTS.get(key)
    }


def base_dataset(spec: Mapping[str, object]) -> dict[str, object] | None:
    """The data set that one with unseen nodes is made of; None for one without."""
    if spec.get("setting") is None:
        return None
    base = {key: value for key, value in spec.items() if key not in UNSEEN_KEYS}
    if not draws_split(base):
        base.pop("split_seed", None)
    return base


def draws_split(spec: Mapping[str, object]) -> bool:
    """Whether something of the data set's split is drawn, by its `split_seed`."""
    options = registry.declared("source", str(spec["source"]))["OPTIONS"]
    drawn = any(spec.get(key) in option.get("drawn", ()) for key, option in options.items())
    return drawn or spec.get("setting") is not None


def store_name(spec: Mapping[str, object]) -> str:
    """The folder of a data set's graph store: its name and 8 hex digits of what it is."""
    return f"{spec['name']}-{digest(dataset_identity(spec), 8)}"


def canonical_json(value: object) -> str:
    """One text per value: sorted keys, no spaces, 1.0 written as 1. NaN raises ValueError."""
    return json.dumps(
        _canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def digest(value: object, digits: int) -> str:
    """The first hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:digits]


def _canonical(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return value
