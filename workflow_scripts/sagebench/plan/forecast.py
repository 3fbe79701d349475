"""What the trials of a study will take: probes, the card, pilots and outcomes, put together."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from sagebench.errors import UserError
from sagebench.estimate.cards import Card, card_name, card_of
from sagebench.estimate.energy import Power, measured_power, power_of
from sagebench.estimate.memory import MemoryEstimate, card_memory, verdict
from sagebench.estimate.probe import Probe, load_probe
from sagebench.estimate.probe import path_of as probe_path
from sagebench.estimate.resident import available_bytes
from sagebench.estimate.samples import GraphFacts, Sample
from sagebench.estimate.time import (
    Observation,
    TimeEstimate,
    corrected,
    from_pilot,
    micro_steps_per_epoch,
    roofline,
    steps_per_epoch,
)
from sagebench.files import read_object
from sagebench.grid.expansion import Request, Study
from sagebench.grid.freeze import manifest_path
from sagebench.grid.resources import Geometry, geometry
from sagebench.grid.trial import Trial, digest
from sagebench.pilot.records import (
    EVALUATED,
    Evaluation,
    Pilot,
    evaluation_key,
    pilot_key,
    pilot_trial,
    read_evaluations,
    read_pilots,
)
from sagebench.plan.past import read_outcomes
from sagebench.records import Outcome, Status

ALIKE = ("engine", "sampler", "precision", "compile", "device", "threads_per_rank")
"""what an outcome shares with a trial whose estimate it corrects"""


Found = TypeVar("Found", Pilot, Evaluation)


@dataclass(frozen=True)
class Forecast:
    """Of one trial; None is what cannot be estimated from what is there."""

    sample: Sample | None = None
    memory: MemoryEstimate | None = None
    memory_limit: str | None = None  # what sets it, in words
    pilot: Pilot | None = None
    evaluation: Evaluation | None = None
    time: TimeEstimate | None = None
    total_s: float | None = None
    energy_j: float | None = None  # of the whole trial
    energy_source: str | None = None

    @property
    def out_of_memory_chance(self) -> float | None:
        """Certain where a pilot, or its validation and test, ran out of memory."""
        measured = (self.pilot, self.evaluation)
        if any(found and found.status is Status.OUT_OF_MEMORY for found in measured):
            return 1.0
        return self.memory and self.memory.out_of_memory_chance

    @property
    def fits(self) -> str | None:
        """FITS, TIGHT or NO_FIT; None where nobody knows."""
        chance = self.out_of_memory_chance
        return None if chance is None else verdict(chance)

    @property
    def is_known(self) -> bool:
        return any(known is not None for known in (self.sample, self.pilot, self.time))


class Forecaster:
    """Estimates for the trials of one study. What it reads, it reads once, when it is first needed.

    without: ids of trials whose own outcomes must not speak for them. warn: is given a sentence for
    a damaged file, which counts as not there.
    """

    def __init__(
        self,
        study: Study,
        without: Collection[str] = (),
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.study = study
        self.without = frozenset(without)
        self.warn = warn
        self._times: dict[tuple[str, str], TimeEstimate | None] = {}
        self._memories: dict[tuple[object, ...], MemoryEstimate | None] = {}
        self._places: dict[int, Geometry] = {}

    @cached_property
    def card(self) -> Card | None:
        """Of the site, where it names one."""
        return None if self.study.site.card is None else card_of(self.study.site.card)

    @cached_property
    def probes(self) -> dict[str, Probe]:
        """By store, of the stores as they are. Of one that is not built yet, the probe is believed;
        of one without a probe its sizes are known."""
        found = {}
        for store in self.study.stores:
            probe = self._read_probe(store)
            manifest = read_object(Path(manifest_path(self.study.results, store)))
            with suppress(KeyError, TypeError):  # whoever opens the store says what is wrong
                if manifest and (not probe or probe.store_checksum != manifest["checksum"]):
                    probe = Probe(manifest["checksum"], GraphFacts.of_manifest(manifest))
            if probe is not None:
                found[store] = probe
        return found

    def _read_probe(self, store: str) -> Probe | None:
        try:
            return load_probe(probe_path(self.study.results, store))
        except UserError as error:
            self.warn(str(error))
            return None

    @cached_property
    def _pilots(self) -> dict[str, Pilot]:
        return read_pilots(self.study.results, self.study.site.machine, self.warn)

    @cached_property
    def _evaluations(self) -> dict[str, Evaluation]:
        return read_evaluations(self.study.results, self.study.site.machine, self.warn)

    @cached_property
    def _outcomes(self) -> list[tuple[Trial, Outcome]]:
        """Of this machine, from whatever study."""
        found = (
            (Trial.from_json(outcome.trial), outcome)
            for outcome in read_outcomes(self.study.results, self.without)
        )
        machine = self.study.site.machine
        return [(trial, outcome) for trial, outcome in found if trial.machine == machine]

    @cached_property
    def _power(self) -> Power:
        return measured_power(outcome for _, outcome in self._outcomes)

    @cached_property
    def _observations(self) -> list[Observation]:
        by_checksum = {probe.store_checksum: probe for probe in self.probes.values()}
        observed = (
            self._observe(trial, outcome, by_checksum[outcome.store.checksum])
            for trial, outcome in self._outcomes
            if outcome.store is not None and outcome.store.checksum in by_checksum
        )
        return [seen for seen in observed if seen is not None]

    def _observe(self, trial: Trial, outcome: Outcome, probe: Probe) -> Observation | None:
        """None where no epoch but the first was timed."""
        timing = outcome.timing
        if timing is None or timing.epoch_median_s is None:
            return None
        estimated = self._estimated(trial, probe)
        validations = [e.evaluation_s for e in outcome.epochs if e.evaluation_s is not None]
        return Observation(
            trial_id=outcome.trial_id,
            exactly=exactly(trial, probe.store_checksum),
            alike=_alike(trial),
            steps_per_epoch=steps_per_epoch(trial, probe.graph),
            micro_steps_per_epoch=micro_steps_per_epoch(trial, probe.graph),
            epoch_s=timing.epoch_median_s,
            start_s=timing.start_to_first_step_s,
            evaluation_s=sum(validations) / len(validations) if validations else None,
            test_s=timing.test_s,
            estimated_s=estimated and estimated.epoch_s,
        )

    def place(self, ranks: int) -> Geometry:
        if ranks not in self._places:
            self._places[ranks] = geometry(ranks, self.study.site)
        return self._places[ranks]

    def of(self, request: Request) -> Forecast:
        """What is known beforehand of a trial."""
        trial, probe = request.trial, self.probes.get(request.store)
        if probe is None:
            return Forecast()
        took = self._time(trial, probe)
        total_s = took.total_s(trial) if took else None
        power = power_of(trial, self.card, self._power, self._pilot(trial, probe))
        return Forecast(
            sample=probe.sample_of(trial),
            memory=self.memory(trial, probe),
            memory_limit=self._memory_limit(trial),
            pilot=self._pilot(trial, probe),
            evaluation=self._evaluation(trial, probe),
            time=took,
            total_s=total_s,
            energy_j=power[0] * total_s if power and total_s else None,
            energy_source=power[1] if power and total_s else None,
        )

    def memory(self, trial: Trial, probe: Probe) -> MemoryEstimate | None:
        """Of a card; None on a CPU, and for what was not probed."""
        device_bytes = self.card and self.card.memory_bytes
        sample, cost = probe.sample_of(trial), probe.cost_of(trial, device_bytes)
        if trial.device != "cuda" or sample is None or cost is None:
            return None
        values = (trial.epochs, trial.ranks > 1, trial.sampling_workers, trial.memory_limit_gib)
        key = (id(cost), *values)
        if key not in self._memories:
            self._memories[key] = card_memory(trial, cost, sample, probe.graph, device_bytes)
        return self._memories[key]

    def _memory_limit(self, trial: Trial) -> str | None:
        """What sets the limit of a card's memory, in words."""
        if trial.device != "cuda":
            return None
        card_bytes = self.card and self.card.memory_bytes
        without = available_bytes(replace(trial, memory_limit_gib=None), card_bytes)
        if available_bytes(trial, card_bytes) != without:
            return f"memory_limit_gib {trial.memory_limit_gib:g}"
        return self.card and self.card.name

    def _time(self, trial: Trial, probe: Probe) -> TimeEstimate | None:
        key = exactly(trial, probe.store_checksum)
        if (key, probe.store_checksum) not in self._times:
            estimate = corrected(
                self._estimated(trial, probe), key, _alike(trial), self._observations
            )
            self._times[key, probe.store_checksum] = estimate
        return self._times[key, probe.store_checksum]

    def _estimated(self, trial: Trial, probe: Probe) -> TimeEstimate | None:
        """Before outcomes: measured steps where there is a pilot, else a roofline's figure."""
        graph, sample = probe.graph, probe.sample_of(trial)
        cost = probe.cost_of(trial, self.card and self.card.memory_bytes)
        on_card = trial.device == "cuda" and self.card is not None and cost is not None
        network = self.card.network(self.place(trial.ranks).nodes) if on_card else None
        pilot = self._pilot(trial, probe)
        modelled = None
        if network is not None and sample is not None:
            modelled = roofline(trial, cost, sample, graph, self.card, network)
        if pilot is None or pilot.status is not Status.COMPLETED:
            return modelled
        evaluation = self._evaluation(trial, probe)
        return from_pilot(trial, pilot, evaluation, graph, cost, network, modelled)

    def _pilot(self, trial: Trial, probe: Probe) -> Pilot | None:
        return self._on_this_card(self._pilots.get(pilot_key(trial, probe.store_checksum)))

    def _evaluation(self, trial: Trial, probe: Probe) -> Evaluation | None:
        key = evaluation_key(trial, probe.store_checksum)
        return self._on_this_card(self._evaluations.get(key))

    def _on_this_card(self, measured: Found | None) -> Found | None:
        """None for what was measured on another card than the site has now."""
        named = measured and card_name(measured.device_name)
        return measured if not (named and self.card) or named == self.card.name else None


def exactly(trial: Trial, store_checksum: str) -> str:
    """Digits that only trials share which differ in nothing that an epoch's time depends on."""
    kept = {name: getattr(trial, name) for name in ("ranks", *EVALUATED)}
    return digest([replace(pilot_trial(trial), **kept).identity(), store_checksum], 16)


def _alike(trial: Trial) -> tuple[object, ...]:
    return tuple(getattr(trial, name) for name in ALIKE)
