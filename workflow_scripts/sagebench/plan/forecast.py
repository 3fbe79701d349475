"""Estimates of a study's trials from probes, data sheet, pilots and outcomes.

What is estimated of a trial is kept beside it, made before it runs and never from its outcome:
results/trials/<id>/prediction.json: {"format", "model", "made_at", "store_checksum", "sample":
{"batches", "nodes", "edges"} or null, "memory": {"peak_bytes", "low_bytes", "high_bytes",
"limit_bytes", "limit", "out_of_memory_chance", "parts"} or null, "time": {"epoch_s", "low_s",
"high_s", "total_s", "basis", "source", "used"} or null, "energy": {"joules", "source"} or null}
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from sagebench import registry
from sagebench.errors import UserError
from sagebench.estimate import vectors
from sagebench.estimate.cards import POWER_SHARE, Card, card_of, find_card
from sagebench.estimate.memory import MemoryEstimate, card_memory, verdict
from sagebench.estimate.probe import GraphFacts, Probe, Sample, available_bytes, load_probe
from sagebench.estimate.probe import path_of as probe_path
from sagebench.estimate.time import (
    TimeEstimate,
    all_reduces_s,
    corrected,
    from_pilot,
    of_outcomes,
    roofline,
)
from sagebench.files import read_object, write_json
from sagebench.grid.expansion import Request, Study
from sagebench.grid.freeze import manifest_path, prediction_path
from sagebench.grid.site import geometry
from sagebench.grid.trial import REGISTERED, Trial, canonical_json, dataset_identity
from sagebench.pilot.records import (
    Pilot,
    epoch_key,
    evaluation_key,
    is_older,
    pilot_key,
    read_pilots,
)
from sagebench.records import Damaged, Outcome, Status, read_outcome
from sagebench.units import GIB

PREDICTION_FORMAT = 1

ALIKE = ("engine", "sampler", "precision", "compile", "kernels", "device", "threads_per_rank")
"""what an outcome shares with a trial whose estimate it corrects"""


@dataclass(frozen=True)
class Forecast:
    """Estimate for one trial; None is unknown."""

    sample: Sample | None = None
    memory: MemoryEstimate | None = None
    memory_limit: str | None = None  # what sets it, in words
    pilot: Pilot | None = None
    evaluation: Pilot | None = None
    time: TimeEstimate | None = None
    total_s: float | None = None
    energy_j: float | None = None  # of the whole trial
    energy_source: str | None = None

    @property
    def out_of_memory_chance(self) -> float | None:
        """1.0 if the pilot, or its validation and test, ran out of memory; else as estimated."""
        measured = (self.pilot, self.evaluation)
        if any(found and found.status is Status.OUT_OF_MEMORY for found in measured):
            return 1.0
        return None if self.memory is None else self.memory.out_of_memory_chance

    @property
    def fits(self) -> str | None:
        """FITS, TIGHT or NO_FIT; None where nobody knows."""
        return verdict(self.out_of_memory_chance)

    @property
    def memory_figures(self) -> dict[str, Any]:
        """The peak, the limit and the chance to exceed it; null where only a pilot tells that."""
        names, chance = MemoryEstimate.__dataclass_fields__, self.out_of_memory_chance
        return {
            **(asdict(self.memory) if self.memory else dict.fromkeys(names)),
            "limit": self.memory_limit,
            "out_of_memory_chance": None if chance is None else round(chance, 4),
        }

    def to_json(self) -> dict[str, Any]:
        """Its figures as prediction.json has them."""
        sample, time = self.sample, self.time
        knows_memory = self.memory is not None or self.out_of_memory_chance is not None
        ends = {"low_s": time.low_s, "high_s": time.high_s, "total_s": self.total_s} if time else {}
        return {
            "sample": sample
            and {"batches": sample.batches, "nodes": sample.nodes.mean, "edges": sample.edges.mean},
            "memory": self.memory_figures if knows_memory else None,
            "time": time and {**asdict(time), **ends},
            "energy": self.energy_j and {"joules": self.energy_j, "source": self.energy_source},
        }


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
        self._times: dict[str, TimeEstimate | None] = {}

    @cached_property
    def card(self) -> Card | None:
        """Data sheet of the site's GPU, where it names one."""
        return card_of(self.study.site.card) if self.study.site.card else None

    @property
    def _card_bytes(self) -> int | None:
        return self.card and self.card.memory_bytes

    @cached_property
    def probes(self) -> dict[str, Probe]:
        """By store, of the stores as they are. Of one that is not built yet, the probe is believed;
        of one without a probe its sizes are known; of one that is not known at all, what is known
        of another seed's draw of the same data set."""
        found = {}
        for store in self.study.stores:
            probe = None
            try:
                probe = load_probe(probe_path(self.study.results, store))
            except UserError as error:
                self.warn(str(error))
            manifest = read_object(Path(manifest_path(self.study.results, store)))
            with suppress(KeyError, TypeError):  # whoever opens the store says what is wrong
                if manifest and (not probe or probe.store_checksum != manifest["checksum"]):
                    probe = Probe(manifest["checksum"], GraphFacts.of_manifest(manifest))
            if probe is not None:
                found[store] = probe
        drawn_alike = {
            _undrawn(spec): store for store, spec in self.study.stores.items() if store in found
        }
        for store, spec in self.study.stores.items():
            if store not in found and (like := drawn_alike.get(_undrawn(spec))):
                found[store] = found[like]
        return found

    @cached_property
    def _pilots(self) -> dict[str, Pilot]:
        """Pilots, without those of another GPU than the site has now."""
        found = read_pilots(self.study.results, self.study.site.machine, self.warn)
        return {
            key: pilot
            for key, pilot in found.items()
            if not (self.card and pilot.device_name) or find_card(pilot.device_name) == self.card
        }

    @cached_property
    def _observed(self) -> tuple[dict[str, list[Outcome]], dict[Any, dict[str, float]]]:
        """This machine's outcomes with a timed epoch, from whatever study, by what only trials
        share that differ in nothing that costs time; ratios of measured over estimated epochs, by
        what trials share that correct one another."""
        same: dict[str, list[Outcome]] = defaultdict(list)
        ratios: dict[Any, dict[str, float]] = defaultdict(dict)
        by_checksum = {probe.store_checksum: probe for probe in self.probes.values()}
        for trial, outcome in known_outcomes(self.study.results, self.without):
            probe = by_checksum.get(outcome.store.checksum) if outcome.store else None
            epoch_s = outcome.timing.epoch_median_s if outcome.timing else None
            if probe is None or trial.machine != self.study.site.machine or epoch_s is None:
                continue
            same[epoch_key(trial, probe.store_checksum)].append(outcome)
            if estimated := self._estimated(trial, probe):
                ratios[_alike(trial)][outcome.trial_id] = epoch_s / estimated.epoch_s
        return same, ratios

    def of(self, request: Request) -> Forecast:
        """Estimate of a trial before it runs."""
        trial, probe = request.trial, self.probes.get(request.store)
        if probe is None:
            return Forecast()
        if trial.method == vectors.METHOD:
            return self._of_vectors(trial, probe.graph)
        took, checksum = self._time(trial, probe), probe.store_checksum
        pilot = self._pilots.get(pilot_key(trial, checksum))
        total_s = took.total_s(trial) if took else None
        power = self._power(trial, pilot) if total_s else None
        return Forecast(
            sample=probe.sample_of(trial),
            memory=self.memory(trial, probe),
            memory_limit=self._memory_limit(trial),
            pilot=pilot,
            evaluation=self._pilots.get(evaluation_key(trial, checksum)),
            time=took,
            total_s=total_s,
            energy_j=power[0] * total_s if power and total_s else None,
            energy_source=power[1] if power else None,
        )

    def _of_vectors(self, trial: Trial, graph: GraphFacts) -> Forecast:
        took = vectors.vectors_time(trial, graph, self._outcomes_of_vectors, self.card)
        total_s = took and vectors.vectors_total_s(trial, took)
        power = self._power(trial, None) if total_s else None
        return Forecast(
            memory=vectors.vectors_memory(trial, graph, self._card_bytes),
            memory_limit=self._memory_limit(trial),
            time=took,
            total_s=total_s,
            energy_j=power[0] * total_s if power and total_s else None,
            energy_source=power[1] if power else None,
        )

    @cached_property
    def _outcomes_of_vectors(self) -> list[Outcome]:
        """Of this machine, from whatever study."""
        return [
            outcome
            for trial, outcome in known_outcomes(self.study.results, self.without)
            if trial.method == vectors.METHOD and trial.machine == self.study.site.machine
        ]

    def _power(self, trial: Trial, pilot: Pilot | None) -> tuple[float, str] | None:
        """Watts of all of a trial's GPUs while it trains, and what they rest on, in words; hosts,
        network and cooling are not in it. None on a CPU, and for a card that nobody knows."""
        if pilot and pilot.energy_j and pilot.micro_steps and pilot.step_mean_s:
            watts = pilot.energy_j / (pilot.micro_steps * pilot.step_mean_s)
            return watts * trial.ranks, "power measured in its pilot"
        if trial.device != "cuda" or self.card is None:
            return None
        limit_w = self.card.power_w
        source = f"{POWER_SHARE:.0%} of the {limit_w:.0f} W of {self.card.name}"
        return POWER_SHARE * limit_w * trial.ranks, source

    def memory(self, trial: Trial, probe: Probe) -> MemoryEstimate | None:
        """Memory on a GPU; None on a CPU, and for what was not probed."""
        sample, cost = probe.sample_of(trial), probe.cost_of(trial, self._card_bytes)
        if trial.device != "cuda" or sample is None or cost is None:
            return None
        return card_memory(trial, cost, sample, probe.graph, self._card_bytes)

    def _memory_limit(self, trial: Trial) -> str | None:
        """Source of the memory limit, as text."""
        cap, on_card = trial.memory_limit_gib, trial.device == "cuda"
        if on_card and cap is not None and available_bytes(trial, self._card_bytes) == cap * GIB:
            return f"memory_limit_gib {cap:g}"
        return self.card.name if on_card and self.card else None

    def _time(self, trial: Trial, probe: Probe) -> TimeEstimate | None:
        """After outcomes of the same machine."""
        key, (same, ratios) = epoch_key(trial, probe.store_checksum), self._observed
        if key not in self._times:
            estimate = self._estimated(trial, probe)
            if key in same:
                estimate = of_outcomes(trial, same[key], probe.graph, estimate)
            elif estimate is not None and _alike(trial) in ratios:
                estimate = corrected(estimate, ratios[_alike(trial)])
            self._times[key] = estimate
        return self._times[key]

    def _estimated(self, trial: Trial, probe: Probe) -> TimeEstimate | None:
        """Time estimate before outcomes: from a pilot if there is one, else the roofline."""
        sample, cost = probe.sample_of(trial), probe.cost_of(trial, self._card_bytes)
        pilot = self._pilots.get(pilot_key(trial, probe.store_checksum))
        modelled = summing_s = None
        if trial.device == "cuda" and self.card and cost and sample:
            on = (probe.graph, self.card, geometry(trial.ranks, self.study.site).nodes)
            summing_s = all_reduces_s(trial, cost, *on)
            modelled = roofline(trial, cost, sample, *on)
        if pilot is None or pilot.status is not Status.COMPLETED:
            return modelled
        evaluation = self._pilots.get(evaluation_key(trial, probe.store_checksum))
        return from_pilot(trial, pilot, evaluation, probe.graph, summing_s, modelled)


def known_outcomes(results: str, without: Collection[str] = ()) -> Iterator[tuple[Trial, Outcome]]:
    """Every outcome below `results`, but those of the trials `without`, and of what is no outcome
    of a trial that is known here: to say what is wrong with it is the analysis' business. Nor those
    of another study's plug-ins, or from before its trial had kernels, or a table to read."""
    known = {kind: set(map(registry.recorded, registry.names(kind))) for kind in REGISTERED}
    for path in sorted(Path(results, "trials").glob("*/outcome.json")):
        if path.parent.name not in without:
            with suppress(Damaged, ValueError, TypeError, KeyError):
                outcome = read_outcome(path)
                trial = Trial.from_json(outcome.trial)
                ours = all(getattr(trial, kind) in known[kind] for kind in REGISTERED)
                if ours and not is_older(trial, outcome):
                    yield trial, outcome


def model_version() -> str:
    """Ten hexadecimal digits that change with the code of the estimates."""
    code, library = hashlib.sha256(), Path(__file__).parents[1]
    for pattern in ("estimate/*.*", "pilot/records.py", "plan/forecast.py"):
        for path in sorted(library.glob(pattern)):
            code.update(path.read_bytes())
    return code.hexdigest()[:10]


def _undrawn(spec: dict[str, Any]) -> str:
    """What a data set is, whatever is drawn of it."""
    identity = dataset_identity(spec)
    return canonical_json({key: one for key, one in identity.items() if key != "split_seed"})


def _alike(trial: Trial) -> tuple[object, ...]:
    return tuple(getattr(trial, name) for name in ALIKE)


def freeze_predictions(study: Study, trial_ids: Collection[str]) -> None:
    """Write the estimates of trials that are about to run; what was estimated of them before, goes.
    Of what was neither probed nor piloted there are none."""
    forecaster = Forecaster(study, without=trial_ids)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    head = {"format": PREDICTION_FORMAT, "model": model_version(), "made_at": now}
    for trial_id in trial_ids:
        request, path = study.requests[trial_id], Path(prediction_path(study.results, trial_id))
        path.unlink(missing_ok=True)
        forecast = forecaster.of(request)
        if forecast.sample or forecast.pilot or forecast.time:
            checksum = forecaster.probes[request.store].store_checksum
            write_json(path, {**head, "store_checksum": checksum, **forecast.to_json()})
