"""From experiments to trials: product x zip x list x seeds, and the checks that need them whole.

A value was checked once, where it is written; here only what several values decide together is
checked, once for each distinct combination, so ten thousand trials take a fraction of a second.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sagebench.errors import UserError
from sagebench.grid import messages
from sagebench.grid.configuration import KEYS, Configuration, Experiment
from sagebench.grid.resources import fits, fitting
from sagebench.grid.site import Site
from sagebench.grid.trial import Trial, store_name

TOGETHER = (
    *("fanout", "layers", "ranks", "walltime_min"),
    *("engine", "sampler", "placement", "precision", "continue_after_walltime"),
)
"""keys that only go with some values of each other, or of the site"""


@dataclass(frozen=True, slots=True)
class ExperimentTrials:
    """An experiment and its trials, in the order of the configuration."""

    name: str
    title: str
    axis: str  # batch_size | fanout | ranks
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


@dataclass(frozen=True, slots=True)
class Study:
    """Every experiment, and every trial once however many experiments ask for it.

    skipped: trials that are not run, because they are predicted to go out of memory, with that
    prediction.
    """

    configuration: Configuration
    site: Site
    experiments: tuple[ExperimentTrials, ...]
    requests: dict[str, Request]  # by trial id
    stores: dict[str, dict[str, Any]]  # data sets by store name
    skipped: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.configuration.study

    @property
    def results(self) -> str:
        return self.configuration.results


@dataclass(frozen=True, slots=True)
class _Row:
    """Values that go together, and where each is written."""

    values: dict[str, Any]
    path: str
    index: int | None = None  # of a column's entry

    def where(self, key: str) -> str:
        return f"{self.path}.{key}" + ("" if self.index is None else f"[{self.index}]")


def expand(configuration: Configuration, site: Site) -> Study:
    """The study's trials; raises UserError for what no trial can be made of."""
    _check_number(configuration)
    experiments: list[ExperimentTrials] = []
    requests: dict[str, Request] = {}
    stores: dict[str, dict[str, Any]] = {}
    asked: dict[tuple[str, frozenset[str]], str] = {}
    for name, experiment in configuration.experiments.items():
        dataset = (experiment.dataset or configuration.dataset).model_dump(exclude_none=True)
        store = store_name(dataset)
        stores.setdefault(store, dataset)
        ids: dict[str, None] = {}
        for trial, walltime_min, continues in _trials(
            name, experiment, configuration, dataset, site
        ):
            trial_id = trial.id
            if trial_id in ids:
                raise UserError(
                    f"experiments.{name} asks twice for the trial {trial.readable}: "
                    "write each combination of values once."
                )
            ids[trial_id] = None
            earlier = requests.get(trial_id)
            if earlier is not None:
                walltime_min = max(walltime_min, earlier.walltime_min)
                continues = continues or earlier.continues
            requests[trial_id] = Request(trial, store, walltime_min, continues)
        twin = asked.setdefault((experiment.axis, frozenset(ids)), name)
        if twin != name:
            raise UserError(
                f"experiments.{name} asks for the very trials of experiments.{twin}: "
                "write one of the two, or another axis."
            )
        experiments.append(
            ExperimentTrials(
                name, experiment.title or name, experiment.axis, tuple(experiment.seeds), tuple(ids)
            )
        )
    return Study(configuration, site, tuple(experiments), requests, stores)


def _check_number(configuration: Configuration) -> None:
    """Raises UserError for more trials than max_trials, before any is made: that takes minutes, and
    the memory of the machine. A trial of two experiments counts twice."""
    most, asked = configuration.max_trials, {}
    for name, experiment in configuration.experiments.items():
        lists = _lists(experiment)
        asked[name] = math.prod(lists.values())
        if asked[name] > most:
            longer = {where: length for where, length in lists.items() if length > 1}
            raise _too_many(f"experiments.{name} asks for", longer, " x ", asked[name], most)
    together = sum(asked.values())
    if together > most:
        raise _too_many("experiments ask for", asked, " + ", together, most)


def _lists(experiment: Experiment) -> dict[str, int]:
    """The lists that an experiment crosses, by where they are written, and how long each is."""
    lists = {f"product.{key}": len(column) for key, column in _given(experiment.product).items()}
    zipped = _given(experiment.zipped)
    if zipped:
        lists["zip"] = len(next(iter(zipped.values())))
    if experiment.rows:
        lists["list"] = len(experiment.rows)
    return {**lists, "seeds": len(experiment.seeds)}


def _too_many(who: str, parts: Mapping[str, int], sign: str, number: int, most: int) -> UserError:
    named = sign.join(f"{count} of {what}" for what, count in parts.items())
    return UserError(
        f"{who} {named} = {number} trials, and max_trials is {most}: "
        "write shorter lists, or a larger max_trials."
    )


def _trials(
    name: str,
    experiment: Experiment,
    configuration: Configuration,
    dataset: dict[str, Any],
    site: Site,
) -> Iterator[tuple[Trial, int, bool]]:
    path = f"experiments.{name}"
    defaults = _Row(dict(configuration.defaults), "defaults")
    fixed = _Row(_given(experiment.fixed), f"{path}.fixed")
    axes = _axes(experiment, path)
    _check_written_once([[fixed], *axes])
    check = _combination_check(site)
    base = {
        **defaults.values,
        **fixed.values,
        "dataset": dataset,
        "device": site.device,
        "machine": site.machine,
    }
    for rows in itertools.product(*axes):
        values = dict(base)
        for row in rows:
            values.update(row.values)
        check(values, lambda key, rows=rows: _origin(key, (defaults, fixed, *rows)))
        walltime_min = values.pop("walltime_min")
        continues = values.pop("continue_after_walltime")
        for seed in experiment.seeds:
            yield Trial(**values, seed=seed), walltime_min, continues


def _axes(experiment: Experiment, path: str) -> list[list[_Row]]:
    """The axes to cross; an axis is a list of rows."""
    axes = []
    for key, entries in _given(experiment.product).items():
        column = [_Row({key: value}, f"{path}.product", i) for i, value in enumerate(entries)]
        axes.append(column)
    columns = _given(experiment.zipped)
    if columns:
        table = zip(*columns.values(), strict=True)
        axes.append(
            [
                _Row(dict(zip(columns, entries, strict=True)), f"{path}.zip", i)
                for i, entries in enumerate(table)
            ]
        )
    if experiment.rows:
        axes.append(
            [_Row(_given(row), f"{path}.list[{i}]") for i, row in enumerate(experiment.rows)]
        )
    return axes


def _given(values: Any) -> dict[str, Any]:
    """The keys that a user wrote, in that order."""
    if values is None:
        return {}
    return {key: getattr(values, key) for key in KEYS if key in values.model_fields_set}


def _check_written_once(axes: list[list[_Row]]) -> None:
    """One key in two places of an experiment would leave one of them without effect."""
    seen: dict[str, tuple[int, str]] = {}
    for number, rows in enumerate(axes):
        for row in rows:
            for key in row.values:
                first, where = seen.setdefault(key, (number, row.where(key)))
                if first != number:
                    raise UserError(
                        f"{row.where(key)} is also given by {where}: write it in one place."
                    )


def _combination_check(site: Site) -> Callable[[dict[str, Any], Callable[[str], str]], None]:
    """A check of the values that only make sense together; equal combinations are checked once."""
    good: set[tuple[Any, ...]] = set()

    def check(values: dict[str, Any], where: Callable[[str], str]) -> None:
        combination = tuple(values[key] for key in TOGETHER)
        if combination in good:
            return
        for key, wanted in _wrong(values, site):
            raise UserError(messages.sentence(where(key), values[key], wanted))
        good.add(combination)

    return check


def _wrong(values: dict[str, Any], site: Site) -> Iterator[tuple[str, str]]:
    """The keys whose values do not go with the others, and what to write instead."""
    fanout, layers = values["fanout"], values["layers"]
    engine, sampler, ranks = values["engine"], values["sampler"], values["ranks"]
    if len(fanout) != layers:
        as_long = [*fanout[:layers], *[0] * (layers - len(fanout))]
        yield (
            "fanout",
            f"one number for each of the {layers} layers, e.g. {as_long}, "
            f"or set layers: {len(fanout)}",
        )
    if engine == "blocks" and sampler != "sagebench":
        yield "sampler", "sagebench, the sampler of engine blocks, or set engine: trimmed"
    if engine != "blocks" and values["placement"] != "auto":
        yield "placement", f"auto: engine {engine} always samples on the host"
    if values["continue_after_walltime"] and sampler == "pyg_lib":
        yield (
            "continue_after_walltime",
            "false: no checkpoint holds pyg_lib's random state, or set sampler: sagebench",
        )
    if values["precision"] == "tf32" and site.device == "cpu":
        yield (
            "precision",
            f"fp32 or bf16: tf32 is a GPU's, and {site.machine} computes on its CPU",
        )
    if not fits(ranks, site):
        yield "ranks", fitting(ranks, site)
    longest = site.limits.walltime_max_min
    if longest is not None and values["walltime_min"] > longest:
        yield "walltime_min", f"at most {longest}, the longest job of {site.machine}"


def _origin(key: str, rows: tuple[_Row, ...]) -> str:
    """Where the value in force is written: the last row that has the key."""
    return next(row.where(key) for row in reversed(rows) if key in row.values)
