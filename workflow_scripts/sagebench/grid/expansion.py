"""Expansion of experiments to trials (product x zip x list x seeds), and checks of whole trials.

A value was checked once, where it is written; here what several values decide together is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sagebench import registry
from sagebench.errors import UserError
from sagebench.grid.site import Site, fits, fitting
from sagebench.grid.trial import (
    INTRODUCTION_DEFAULTS,
    Trial,
    base_dataset,
    draws_split,
    heeds,
    store_name,
)
from sagebench.grid.values import sentence
from sagebench.registry import Declared, Option

if TYPE_CHECKING:
    from sagebench.grid.study_types import Configuration, Experiment

Entries = dict[str, tuple[Any, str]]
"""values that go together, by key, each with where it is written"""


@dataclass(frozen=True, slots=True)
class ExperimentTrials:
    """An experiment and its trials, in the order of the configuration."""

    name: str
    title: str
    axis: str  # a key of a trial, or several with a - between
    seeds: tuple[int, ...]
    trials: tuple[str, ...]  # ids


@dataclass(frozen=True, slots=True)
class Request:
    """A trial and what it asks for."""

    trial: Trial
    store: str  # folder name of its graph store
    walltime_min: int
    continues: bool  # past its walltime it goes on in another job
    runtime_min: int | None = None  # of its first job, by a prediction; None: the walltime


@dataclass(frozen=True)
class Study:
    """An expanded study: its experiments, and each distinct trial once.

    skipped: trials that are not run, because they are predicted to go out of memory, with that
    prediction.
    """

    configuration: Configuration
    site: Site
    experiments: tuple[ExperimentTrials, ...]
    requests: dict[str, Request]  # by trial id
    stores: dict[str, dict[str, Any]]  # data sets of the trials by store name
    skipped: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.configuration.study

    @property
    def results(self) -> str:
        return self.configuration.results

    @cached_property
    def all_stores(self) -> dict[str, dict[str, Any]]:
        """Data sets by store name, those that others are made of among them."""
        bases = filter(None, map(base_dataset, self.stores.values()))
        return {**{store_name(base): base for base in bases}, **self.stores}


def expand(configuration: Configuration, site: Site) -> Study:
    """The study's trials; raises UserError for what no trial can be made of."""
    grid = {name: _axes(name, one) for name, one in configuration.experiments.items()}
    _check_number(grid, configuration.max_trials)
    defaults = {key: (value, f"defaults.{key}") for key, value in configuration.defaults}
    experiments: list[ExperimentTrials] = []
    requests: dict[str, Request] = {}
    stores: dict[str, dict[str, Any]] = {}
    for name, experiment in configuration.experiments.items():
        dataset = (experiment.dataset or configuration.dataset).model_dump(exclude_none=True)
        ids: dict[str, None] = {}
        for rows in itertools.product(*grid[name].values()):
            request = _request(defaults, rows, dataset, site)
            stores.setdefault(request.store, request.trial.dataset)
            trial_id = request.trial.id
            if trial_id in ids:
                raise UserError(
                    f"experiments.{name} asks twice for the trial {request.trial.readable}: "
                    "write each combination of values once."
                )
            ids[trial_id] = None
            earlier = requests.get(trial_id, request)
            requests[trial_id] = replace(
                request,
                walltime_min=max(request.walltime_min, earlier.walltime_min),
                continues=request.continues or earlier.continues,
            )
        axis = experiment.axis if isinstance(experiment.axis, str) else "-".join(experiment.axis)
        studied = registry.option_owners().keys() & set(axis.split("-"))
        for key in studied - {key for one in ids for key in requests[one].trial.options}:
            owners = " or ".join(registry.option_owners()[key])
            raise UserError(
                f"experiments.{name}.axis has {key}, which none of its trials has: set {owners}, "
                "or write another axis."
            )
        title, seeds = experiment.title or name, tuple(experiment.seeds)
        experiments.append(ExperimentTrials(name, title, axis, seeds, tuple(ids)))
    return Study(configuration, site, tuple(experiments), requests, stores)


def _request(
    defaults: Entries, rows: Iterable[Entries], dataset: dict[str, Any], site: Site
) -> Request:
    """The trial of one row of each axis."""
    entries = dict(defaults)
    for row in rows:
        entries.update(row)
    values = {key: value for key, (value, _) in entries.items()}
    owners, method = registry.option_owners(), values["method"]
    for key, (value, where) in entries.items():
        if key not in owners and not heeds(method, key):
            if value is not None and not where.startswith("defaults."):
                raise UserError(f"{where} means nothing to method {method}: leave it out.")
            values[key] = INTRODUCTION_DEFAULTS.get(key, False)
    own = _own_options(values)
    if not _reads_neighbors(values["model"]) and entries["fanout"][1].startswith("defaults."):
        values["fanout"] = (0,) * values["layers"]
    for key, write in itertools.chain(_wrong(values, own, site), _wrong_modules(values)):
        raise UserError(sentence(entries[key][1], values[key], write))
    given = {key: values.pop(key) for key in owners}
    values["options"] = {
        key: option["default"] if given[key] is None else given[key] for key, option in own.items()
    }
    values["options"] = {key: one for key, one in values["options"].items() if one is not None}
    walltime_min, continues = values.pop("walltime_min"), values.pop("continue_after_walltime")
    values["sampler"] = registry.recorded(values["sampler"])
    if draws_split(dataset):
        dataset = {"split_seed": values["seed"], **dataset}
    trial = Trial(**values, dataset=dataset, device=site.device, machine=site.machine)
    return Request(trial, store_name(dataset), walltime_min, continues)


def _own_options(values: Mapping[str, Any]) -> dict[str, Option]:
    """The options of the trial's model and method."""
    found: dict[str, Option] = {}
    for kind in ("model", "method"):
        if heeds(values["method"], kind):
            found |= registry.declared(kind, values[kind]).get("OPTIONS", {})
    return found


def _axes(name: str, experiment: Experiment) -> dict[str, list[Entries]]:
    """Rows of values that an experiment crosses, by where they are written in it. Raises UserError
    for a key in two places, of which one would have no effect."""
    path = f"experiments.{name}"
    axes = {"fixed": [_given(experiment.fixed, f"{path}.fixed")]}
    for key, (column, where) in _given(experiment.product, f"{path}.product").items():
        axes[f"product.{key}"] = [{key: (value, f"{where}[{i}]")} for i, value in enumerate(column)]
    zipped = _given(experiment.zipped, f"{path}.zip")
    for key, (column, where) in zipped.items():
        for i, value in enumerate(column):
            row = axes.setdefault("zip", [{} for _ in column])[i]
            row[key] = value, f"{where}[{i}]"
    if experiment.rows:
        axes["list"] = [_given(row, f"{path}.list[{i}]") for i, row in enumerate(experiment.rows)]
    axes["seeds"] = [{"seed": (seed, f"{path}.seeds")} for seed in experiment.seeds]
    seen: Entries = {}
    for rows in axes.values():
        first = {key: entry for row in reversed(rows) for key, entry in row.items()}
        for key, (_, where) in first.items():
            if key in seen:
                raise UserError(f"{where} is also given by {seen[key][1]}: write it in one place.")
        seen |= first
    return axes


def _given(values: Any, path: str) -> Entries:
    """Values that a user wrote at `path`."""
    return {
        key: (value, f"{path}.{key}")
        for key, value in values or ()
        if key in values.model_fields_set
    }


def _check_number(grid: Mapping[str, Mapping[str, list[Entries]]], most: int) -> None:
    """Raises UserError for more trials than max_trials, before any is made: that takes minutes, and
    the memory of the machine. A trial of two experiments counts twice."""
    asked = {name: math.prod(map(len, axes.values())) for name, axes in grid.items()}
    if sum(asked.values()) > most:
        named = " + ".join(f"{number} of {name}" for name, number in asked.items())
        raise UserError(
            f"experiments ask for {named} = {sum(asked.values())} trials, and max_trials is "
            f"{most}: write shorter lists, or a larger max_trials."
        )


def _wrong(
    values: Mapping[str, Any], own: Mapping[str, Option], site: Site
) -> Iterator[tuple[str, str]]:
    """The keys whose values do not go with the others, and what to write instead."""
    fanout, layers, ranks = values["fanout"], values["layers"], values["ranks"]
    if len(fanout) != layers and heeds(values["method"], "fanout"):
        as_long = [*fanout[:layers], *[0] * (layers - len(fanout))]
        yield (
            "fanout",
            f"one number for each of the {layers} layers, e.g. {as_long}, "
            f"or set layers: {len(fanout)}",
        )
    for key, owners in registry.option_owners().items():
        if key not in own and values[key] is not None:
            yield key, f"null, or leave it out: it is of {' and '.join(owners)}"
    chosen: dict[str, Any] = dict(values)
    chosen |= {key: one["default"] for key, one in own.items() if values[key] is None}
    for key, option in own.items():
        divided, bound = option.get("divides"), option.get("at_most")
        if divided and chosen[divided] % chosen[key]:
            yield key, f"a number that divides {divided} ({chosen[divided]})"
        if bound and chosen[key] > chosen[bound]:
            yield key, f"a number that is at most {bound} ({chosen[bound]})"
    if values["precision"] == "tf32" and site.device == "cpu":
        yield (
            "precision",
            f"fp32 or bf16: tf32 is a GPU's, and {site.machine} computes on its CPU",
        )
    has_kernels = registry.declared("engine", values["engine"]).get("HAS_KERNELS", False)
    if values["compile"] and has_kernels and values["kernels"] == "auto" and site.device == "cuda":
        yield "compile", "false, or kernels: plain beside it, since torch then makes the kernels"
    if not fits(ranks, site):
        yield "ranks", fitting(ranks, site)
    longest = site.limits.walltime_max_min
    if longest is not None and values["walltime_min"] > longest:
        yield "walltime_min", f"at most {longest}, the longest job of {site.machine}"


def _wrong_modules(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys that do not go with model, engine and sampler, by what these declare."""
    model, engine, sampler = (
        registry.declared(kind, values[kind]) for kind in ("model", "engine", "sampler")
    )
    engines = model.get("ENGINES", [values["engine"]])
    if values["engine"] not in engines:
        yield "engine", f"{' or '.join(engines)}, on which model {values['model']} computes"
    zeros = [0] * len(values["fanout"])
    if not _reads_neighbors(values["model"]) and any(values["fanout"]):
        yield "fanout", f"{zeros}: model {values['model']} reads no neighbors"
    if values["aggregator"] not in model.get("AGGREGATORS", ["mean"]):
        alone = f"mean, or leave it out: model {values['model']} aggregates in its own way"
        yield "aggregator", " or ".join(model.get("AGGREGATORS", [alone]))
    if sampler["GIVES"] not in engine["TAKES"]:
        fitting = _which("sampler", lambda one: one["GIVES"] in engine["TAKES"])
        others = _which("engine", lambda one: sampler["GIVES"] in one["TAKES"])
        yield (
            "sampler",
            f"{fitting}, which engine {values['engine']} takes, or set engine: {others}",
        )
    if values["placement"] not in engine["PLACEMENTS"]:
        placements = " or ".join(engine["PLACEMENTS"])
        yield "placement", f"{placements}: engine {values['engine']} always samples on the host"
    if values["continue_after_walltime"] and not sampler["KEYED"]:
        yield (
            "continue_after_walltime",
            f"false: no checkpoint holds {values['sampler']}'s random state, or set sampler: "
            + _which("sampler", lambda one: one["KEYED"]),
        )


def _reads_neighbors(model: str) -> bool:
    return registry.declared("model", model).get("READS_NEIGHBORS", True)


def _which(kind: str, fits: Callable[[Declared], bool]) -> str:
    """The names of those whose declarations fit."""
    return " or ".join(name for name in registry.names(kind) if fits(registry.declared(kind, name)))
