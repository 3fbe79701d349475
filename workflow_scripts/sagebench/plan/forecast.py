"""What the trials of a study will take: probes, the device's rates and outcomes, put together.

Each prediction is made once for all trials that do not differ in what it depends on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from sagebench.errors import UserError
from sagebench.files import read_json
from sagebench.grid.expansion import Request, Study
from sagebench.grid.freeze import manifest_path
from sagebench.grid.resources import Geometry, geometry
from sagebench.grid.trial import FIELD_NAMES, Trial
from sagebench.plan.past import read_outcomes
from sagebench.predict import energy, time
from sagebench.predict.cards import card_rates
from sagebench.predict.correction import History
from sagebench.predict.evaluation import enlarged
from sagebench.predict.memory import (
    NO_FIT,
    MemoryPrediction,
    peak_memory,
    usable_bytes,
    verdict,
)
from sagebench.predict.probe import Probe, load_probe
from sagebench.predict.probe import path_of as probe_path
from sagebench.predict.rates import Rates, load_rates
from sagebench.predict.rates import path_of as rates_path
from sagebench.predict.resident import placement_of, process_bytes_of
from sagebench.predict.samples import Sample, Spread
from sagebench.predict.time import TimePrediction, epoch_time
from sagebench.predict.work import Counts
from sagebench.units import GIB

WITHOUT_EFFECT = frozenset(
    {
        "dataset",  # the store stands for it
        "seed",
        "epochs",
        "learning_rate",
        "learning_rate_scaling",
        "patience_evaluations",
        "evaluate_every_epochs",
        "phase_window_steps",
    }
)
"""values of a trial that no prediction of an epoch's time depends on"""
KEY_FIELDS = tuple(name for name in FIELD_NAMES if name not in WITHOUT_EFFECT)


@dataclass(frozen=True)
class Forecast:
    """Of one trial; None is what cannot be predicted from what is there."""

    sample: Sample | None
    memory: MemoryPrediction | None
    memory_limit_bytes: float | None
    memory_limit: str | None
    out_of_memory_chance: float | None
    time: TimePrediction | None
    total_s: float | None
    energy_j: float | None  # of the whole trial
    energy_source: str | None

    @property
    def fits(self) -> str | None:
        """FITS, TIGHT or NO_FIT; None where no limit is known."""
        chance = self.out_of_memory_chance
        return None if chance is None else verdict(chance)

    def peak(self) -> tuple[float, float, float] | None:
        """Low end, middle and high end of the peak in bytes.

        Where a trial fits, its card is the most that the allocator holds, whatever it would take.
        """
        if self.memory is None:
            return None
        most = math.inf
        if self.memory_limit_bytes is not None and self.fits != NO_FIT:
            most = self.memory_limit_bytes
        ends = self.memory.low_bytes, self.memory.peak_bytes, self.memory.high_bytes
        return tuple(min(size, most) for size in ends)

    def interval(self) -> tuple[float, float] | None:
        """Factors from the time to the ends of its interval."""
        if self.time is None:
            return None
        return self.time.low_s / self.time.epoch_s, self.time.high_s / self.time.epoch_s


class Forecaster:
    """Predicts the trials of one study. What it reads, it reads once, when it is first needed.

    without: ids of trials whose own outcomes must not speak for them.
    """

    def __init__(self, study: Study, without: Collection[str] = ()) -> None:
        self.study = study
        self.without = frozenset(without)
        self._times: dict[tuple[Any, ...], TimePrediction | None] = {}
        self._chances: dict[tuple[int, float], tuple[MemoryPrediction, float]] = {}
        self._places: dict[int, Geometry] = {}

    @cached_property
    def probes(self) -> dict[str, Probe]:
        """By store: those that there are, of the stores as they are."""
        found = {}
        for store in self.study.stores:
            probe = load_probe(probe_path(self.study.results, store))
            if probe is not None and probe.store_checksum == self._checksum(store, probe):
                found[store] = probe
        return found

    def _checksum(self, store: str, probe: Probe) -> str:
        """Of the store that is there; of one that is not built yet, the probe is believed."""
        manifest = Path(manifest_path(self.study.results, store))
        try:
            return read_json(manifest)["checksum"] if manifest.exists() else probe.store_checksum
        except (OSError, ValueError, KeyError):  # whoever opens the store says what is wrong
            return ""

    @cached_property
    def rates(self) -> Rates | None:
        """Measured on the site's machine, or those of its card; None where there is neither."""
        site = self.study.site
        measured = load_rates(rates_path(self.study.results, site.machine))
        if measured is not None and measured.device == site.device:
            return measured
        return card_rates(site.card) if site.card is not None else None

    @cached_property
    def _outcomes(self) -> list[dict[str, Any]]:
        """Of this machine and the study's engines, from whatever study."""
        engines = {request.trial.engine for request in self.study.requests.values()}
        trained = (
            (Trial.from_json(outcome.trial), outcome.to_json())
            for outcome in read_outcomes(self.study.results, self.without)
        )
        return [
            outcome
            for trial, outcome in trained
            if trial.machine == self.study.site.machine and trial.engine in engines
        ]

    @cached_property
    def _past(self) -> tuple[History, energy.Power]:
        if self.rates is None:
            return History(), {}
        history = time.history_of(self._outcomes, self.rates, self.probes.values())
        return history, energy.measured_power(self._outcomes)

    @cached_property
    def _process_bytes(self) -> dict[tuple[str, bool], int]:
        """What the process alone takes of a CPU rank on this machine, as outcomes measured it, by
        engine and whether it has other ranks beside it."""
        found: dict[tuple[str, bool], list[int]] = {}
        for outcome in self._outcomes:
            trial, graph = Trial.from_json(outcome["trial"]), time.graph_of(outcome)
            if graph is None or trial.device != "cpu":
                continue
            for rank in outcome.get("ranks") or []:
                if size := rank.get("host_private_before_training_bytes"):
                    kind = trial.engine, trial.ranks > 1
                    found.setdefault(kind, []).append(process_bytes_of(trial, graph, size))
        return {kind: round(median(sizes)) for kind, sizes in found.items()}

    def place(self, ranks: int) -> Geometry:
        if ranks not in self._places:
            self._places[ranks] = geometry(ranks, self.study.site)
        return self._places[ranks]

    def of(self, request: Request) -> Forecast:
        """What is known beforehand of a trial."""
        probe = self.probes.get(request.store)
        sample = probe.sample_of(request.trial) if probe else None
        if probe is None or sample is None:
            return Forecast(None, None, None, None, None, None, None, None, None)
        memory, limit, limited_by = self._memory(request.trial, sample, probe)
        took = self._time(request, probe, sample)
        total_s = took.total_s(request.trial) if took else None
        power = None
        if took is not None and self.rates is not None:
            power = energy.power_of(request.trial, self.rates, self._past[1])
        return Forecast(
            sample=sample,
            memory=memory,
            memory_limit_bytes=limit,
            memory_limit=limited_by,
            out_of_memory_chance=None if limit is None else self._chance(memory, limit),
            time=took,
            total_s=total_s,
            energy_j=power[0] * total_s if power and total_s else None,
            energy_source=power[1] if power else None,
        )

    def at_batch_size(self, request: Request, batch_size: int) -> Forecast | None:
        """Of the same trial at a batch size that was not probed: an estimate, for pictures only.

        Its sample is taken to be that of so many independent smaller or larger ones together.
        """
        probe = self.probes.get(request.store)
        sample = probe.sample_of(request.trial) if probe else None
        if probe is None or sample is None or batch_size > probe.graph.train_nodes:
            return None
        trial = replace(request.trial, batch_size=batch_size)
        there = resized(sample, batch_size, probe.graph.num_nodes)
        memory, limit, limited_by = self._memory(trial, there, probe)
        return Forecast(
            sample=None,
            memory=memory,
            memory_limit_bytes=limit,
            memory_limit=limited_by,
            out_of_memory_chance=None if limit is None else self._chance(memory, limit),
            time=None,
            total_s=None,
            energy_j=None,
            energy_source=None,
        )

    def _memory(
        self, trial: Trial, sample: Sample, probe: Probe
    ) -> tuple[MemoryPrediction, float | None, str | None]:
        """The prediction, what a rank may use, and what sets that, in words."""
        device_bytes, device = self._device_bytes(trial)
        memory = peak_memory(
            trial,
            sample,
            probe.graph,
            device_bytes,
            placement=self._placement(trial, probe),
            process_bytes=self._process_bytes.get((trial.engine, trial.ranks > 1)),
        )
        limit = usable_bytes(trial, memory, device_bytes)
        if trial.memory_limit_gib is not None and limit != usable_bytes(
            replace(trial, memory_limit_gib=None), memory, device_bytes
        ):
            device = f"memory_limit_gib {trial.memory_limit_gib:g}"
            if trial.device == "cpu":
                device += " beyond what a process has before it trains"
        return memory, limit, device

    def _chance(self, memory: MemoryPrediction, limit_bytes: float) -> float:
        key = id(memory), limit_bytes  # equal trials share one prediction
        if key not in self._chances:
            self._chances[key] = memory, memory.out_of_memory_chance(limit_bytes)
        return self._chances[key][1]

    def _placement(self, trial: Trial, probe: Probe) -> str:
        return placement_of(trial, probe.graph, self._device_bytes(trial)[0])

    def _device_bytes(self, trial: Trial) -> tuple[int | None, str | None]:
        """Of a card, or a rank's share of a host's memory, and its name; None: not known."""
        if trial.device == "cuda":
            if self.rates is None or not self.rates.device_memory_bytes:
                return None, None
            return self.rates.device_memory_bytes, self.rates.device_name
        node_gib = self.study.site.memory_per_node_gib
        if node_gib is None:
            return None, None
        ranks = self.place(trial.ranks).ranks_per_node
        return int(node_gib * GIB / ranks), "a rank's share of the node"

    def _time(self, request: Request, probe: Probe, sample: Sample) -> TimePrediction | None:
        if self.rates is None or self.rates.device != request.trial.device:
            return None
        trial = request.trial
        key = request.store, *(getattr(trial, name) for name in KEY_FIELDS)
        if key not in self._times:
            nodes = self.place(trial.ranks).nodes
            try:
                predicted = epoch_time(
                    trial,
                    sample,
                    probe.graph,
                    self.rates,
                    self._past[0],
                    nodes=nodes,
                    placement=self._placement(trial, probe),
                )
            except UserError:  # rates without, say, the trial's precision
                predicted = None
            self._times[key] = predicted
        return self._times[key]


def resized(sample: Sample, batch_size: int, num_nodes: int) -> Sample:
    """A rough sample of another batch size; spreads stay the same part of their means."""
    counts = Counts(
        [spread.full_mean for spread in sample.nodes_per_hop],
        [spread.full_mean for spread in sample.edges_per_hop],
    )
    larger = enlarged(counts, batch_size / sample.batch_size, num_nodes)

    def scaled(spread: Spread, mean: float) -> Spread:
        share = mean / spread.full_mean if spread.full_mean else 0.0
        return Spread(mean, mean, share * spread.std)

    return replace(
        sample,
        batch_size=batch_size,
        batches=0,
        sampled=False,
        nodes_per_hop=tuple(map(scaled, sample.nodes_per_hop, larger.nodes)),
        edges_per_hop=tuple(map(scaled, sample.edges_per_hop, larger.edges)),
        nodes=scaled(sample.nodes, sum(larger.nodes)),
        edges=scaled(sample.edges, sum(larger.edges)),
    )


def model_version() -> str:
    """Ten hexadecimal digits that change with the code of the predictions."""
    code = hashlib.sha256()
    for path in sorted((Path(__file__).parents[1] / "predict").glob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()[:10]
