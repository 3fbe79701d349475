"""What goes together, by what engines, samplers, models and methods declare of themselves.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sagebench import registry
from sagebench.grid.trial import FIELD_NAMES, Trial
from sagebench.registry import Declared, Option

COMMON = frozenset({"method", "seed", "threads_per_rank", "memory_limit_gib", "walltime_min"})
"""keys that every method heeds"""


def option_owners() -> dict[str, dict[str, Option]]:
    """The options of all models and methods: by key, then by owner, e.g. "model gat", as it
    declares them."""
    found: dict[str, dict[str, Option]] = {}
    for kind in ("model", "method"):
        for name in registry.names(kind):
            for key, option in registry.declared(kind, name).get("OPTIONS", {}).items():
                found.setdefault(key, {})[f"{kind} {name}"] = option
    return found


def heeds(method: str, key: str) -> bool:
    """Whether a method has a use for a key of a configuration that is no option."""
    used = registry.declared("method", method).get("KEYS")
    return used is None or key in COMMON or key in used


def unheeded(method: str) -> set[str]:
    """The keys of a trial that a method has no use for."""
    always = {"dataset", "device", "machine", "options", "ranks"}
    return {key for key in FIELD_NAMES if key not in always and not heeds(method, key)}


def incompatible(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys whose values do not go with the others, and what to write instead.

    values: of every key of a configuration; of a model's option None where it is not given.
    """
    yield from _wrong_of_model(values)
    engine = registry.declared("engine", values["engine"])
    sampler = registry.declared("sampler", values["sampler"])
    if sampler["GIVES"] not in engine["TAKES"]:
        fitting = _with("sampler", lambda one: one["GIVES"] in engine["TAKES"])
        others = _with("engine", lambda one: sampler["GIVES"] in one["TAKES"])
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
            + _with("sampler", lambda one: one["KEYED"]),
        )


def _wrong_of_model(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    model, engine, aggregator = values["model"], values["engine"], values["aggregator"]
    declared = registry.declared("model", model)
    engines = declared.get("ENGINES", [engine])
    if engine not in engines:
        yield "engine", f"{' or '.join(engines)}, on which model {model} computes"
    aggregators = declared.get("AGGREGATORS", ["mean"])
    if aggregator not in aggregators:
        alone = f"mean, or leave it out: model {model} aggregates in its own way"
        yield "aggregator", " or ".join(aggregators) if "AGGREGATORS" in declared else alone
    own = _own_options(values)
    for key, owners in option_owners().items():
        if key not in own and values[key] is not None:
            yield key, f"null, or leave it out: it is of {' and '.join(owners)}"
    for key, value in options_of(values).items():
        divided = own[key].get("divides")
        if divided and values[divided] % value:
            yield key, f"a number that divides {divided} ({values[divided]})"


def options_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a trial's model and method, those that are not given at their default."""
    return {
        key: option["default"] if values[key] is None else values[key]
        for key, option in _own_options(values).items()
    }


def _own_options(values: Mapping[str, Any]) -> dict[str, Option]:
    found: dict[str, Option] = {}
    for kind in ("model", "method"):
        if heeds(values["method"], kind):
            found |= registry.declared(kind, values[kind]).get("OPTIONS", {})
    return found


def _with(kind: str, fits: Callable[[Declared], bool]) -> str:
    """The names of those whose declarations fit."""
    return " or ".join(name for name in registry.names(kind) if fits(registry.declared(kind, name)))


def law_of(trial: Trial) -> str:
    """The law by which the trial's sampler draws neighbors."""
    return registry.declared("sampler", trial.sampler)["LAW"]


def samples_where_placed(trial: Trial) -> bool:
    """Whether the trial's engine samples in threads where graph and features are placed, and not in
    PyG's loader processes on the host."""
    return registry.declared("engine", trial.engine)["LOADS"] == "threads"
