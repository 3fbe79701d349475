"""The probe of a store: what trials sample and what a step of them costs, learnt on a CPU.

results/probes/<store>.json holds {"format", "store_checksum", "graph": GraphFacts, "samples":
{"<fanout>/<batch size>": Sample}, "steps": {key: StepCost}}. What is there is not taken again; it
starts anew when the store's checksum is another one. Reading it takes neither torch nor numba.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagebench.errors import UserError
from sagebench.estimate.memory import placement_of
from sagebench.estimate.samples import (
    GraphFacts,
    Sample,
    StepCost,
    expected_maximum,
    sample_name,
)
from sagebench.files import hold, read_json, write_json
from sagebench.grid.together import law_of, samples_where_placed
from sagebench.grid.trial import Trial
from sagebench.pilot.costs import deciding_values, step_name

if TYPE_CHECKING:
    from sagebench.graph.store import GraphStore

FORMAT, WITHOUT_STEPS = 2, 1
PLACEMENTS = ("device", "host")
"""of a card: which one is chosen depends on its memory, so both are recorded"""
SAVED_EVERY_S = 10.0
"""while steps are recorded: writing the file takes as long as some of them"""


@dataclass
class Probe:
    """What is known of a store, of its samples and of the steps on them."""

    store_checksum: str
    graph: GraphFacts
    samples: dict[str, Sample] = field(default_factory=dict)
    steps: dict[str, StepCost] = field(default_factory=dict)

    def sample_of(self, trial: Trial) -> Sample | None:
        """What the trial samples; None where that was not probed, and of no mini-batches."""
        return self.samples.get(_sample_name(trial)) if trial.in_minibatches else None

    def cost_of(self, trial: Trial, device_bytes: int | None) -> StepCost | None:
        """Of the trial's step on a card of so many bytes; None where it was not probed."""
        placement = placement_of(trial, self.graph, device_bytes)
        return self.steps.get(step_name(deciding_values(trial), placement))

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Probe:
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']}, this version reads {FORMAT}")
        return cls(
            record["store_checksum"],
            GraphFacts.from_json(record["graph"]),
            {name: Sample.from_json(value) for name, value in record["samples"].items()},
            {name: StepCost.from_json(value) for name, value in record["steps"].items()},
        )


def path_of(results: str | os.PathLike[str], store: str) -> Path:
    """Where the probe of a store (its folder's name) is kept."""
    return Path(results, "probes", f"{store}.json")


def load_probe(path: str | os.PathLike[str]) -> Probe | None:
    """The probe in a file; None: no such file, or the version before wrote it, without steps.
    Raises UserError for a file that is none."""
    try:
        record = read_json(path)
        return None if record["format"] == WITHOUT_STEPS else Probe.from_json(record)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no probe ({type(error).__name__}: {error}): `make probe` makes it again"
        ) from None


def probe_store(
    store: GraphStore,
    trials: Iterable[Trial],
    path: str | os.PathLike[str],
    *,
    threads: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Probe:
    """Take the samples and record the steps of `trials` that the probe in `path` lacks.

    It is written as it grows, so that a probe that was interrupted goes on where it was. A file
    that is no probe, or one of another graph, is replaced. threads: micro-batches sampled at a
    time. say: is given a line a sample, and some of the steps.
    """
    path, trials = Path(path), list(trials)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with hold(lock, f"{path} is being made already: waiting for that"):
        probe = None
        with contextlib.suppress(UserError):
            probe = load_probe(path)
        if probe is None or probe.store_checksum != store.checksum:
            probe = Probe(store.checksum, GraphFacts.of_manifest(store.manifest))
        _sample(probe, store, trials, path, threads, say)
        _record(probe, trials, path, say)
    return probe


def _sample_name(trial: Trial) -> str:
    return sample_name(trial.fanout, trial.batch_size, law_of(trial))


def _sample(
    probe: Probe,
    store: GraphStore,
    trials: list[Trial],
    path: Path,
    threads: int,
    say: Callable[[str], None],
) -> None:
    wanted = {_sample_name(trial): trial for trial in trials}
    missing = sorted(
        (trial.fanout, trial.batch_size, name)
        for name, trial in wanted.items()
        if name not in probe.samples
    )
    if not missing:
        return
    from sagebench.estimate.counting import Counter  # numba takes a second to import

    counter = Counter(store, threads)
    for done, (fanout, batch_size, name) in enumerate(missing, start=1):
        sample = counter.take(fanout, batch_size, law_of(wanted[name]))
        probe.samples[name] = sample
        write_json(path, probe.to_json())
        say(
            f"sampled {done} of {len(missing)}: {name}: {sample.nodes.mean:,.0f} nodes, "
            f"{sample.edges.mean:,.0f} edges, from {sample.batches} micro-batches"
        )


def _record(probe: Probe, trials: list[Trial], path: Path, say: Callable[[str], None]) -> None:
    missing: dict[str, tuple[Trial, str, int]] = {}
    for trial in trials:
        values = deciding_values(trial)
        micro_batches = probe.graph.micro_batches(trial.batch_size) * trial.epochs
        for placement in PLACEMENTS if samples_where_placed(trial) else ("host",):
            name = step_name(values, placement)
            known, most = probe.steps.get(name), missing.get(name, (trial, placement, 0))[2]
            if known is None or known.largest_z < expected_maximum(micro_batches):
                missing[name] = trial, placement, max(micro_batches, most)
    if not missing:
        return
    from sagebench.estimate.step import step_cost  # torch takes seconds to import

    saved_s = time.monotonic()
    for done, (name, (trial, placement, micro_batches)) in enumerate(missing.items(), start=1):
        sample = probe.sample_of(trial)
        assert sample is not None
        probe.steps[name] = step_cost(trial, sample, probe.graph, placement, micro_batches)
        if time.monotonic() - saved_s > SAVED_EVERY_S or done == len(missing):
            write_json(path, probe.to_json())
            saved_s = time.monotonic()
            say(f"recorded {done} of {len(missing)} steps")
