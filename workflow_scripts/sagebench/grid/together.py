"""What goes together, by what engines, samplers and models declare of themselves.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sagebench import registry
from sagebench.grid.trial import Trial

COMMON = frozenset({"method", "seed", "threads_per_rank", "memory_limit_gib", "walltime_min"})
"""keys that every method heeds"""


def option_owners() -> dict[str, dict[str, Mapping[str, Any]]]:
    """The options of all models and methods: by key, then by owner, e.g. "model gat", as it
    declares them."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for kind in ("model", "method"):
        for name in registry.names(kind):
            for key, option in registry.declared(kind, name).get("OPTIONS", {}).items():
                found.setdefault(key, {})[f"{kind} {name}"] = option
    return found


def heeds(values: Mapping[str, Any], key: str) -> bool:
    """Whether the method of `values` has a use for `key`."""
    declared = registry.declared("method", values["method"])
    used = declared.get("KEYS")
    return used is None or key in COMMON or key in used or key in option_owners()


def wrong_together(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys whose values do not go with the others, and what to write instead.

    values: of every key of a configuration; of a model's option None where it is not given.
    """
    yield from _wrong_of_model(values)
    engine, sampler = values["engine"], values["sampler"]
    takes = registry.declared("engine", engine)["TAKES"]
    if registry.declared("sampler", sampler)["GIVES"] not in takes:
        fitting = " or ".join(_with("sampler", "GIVES", takes))
        others = " or ".join(
            name
            for name in registry.names("engine")
            if registry.declared("sampler", sampler)["GIVES"]
            in registry.declared("engine", name)["TAKES"]
        )
        yield "sampler", f"{fitting}, which engine {engine} takes, or set engine: {others}"
    placements = registry.declared("engine", engine)["PLACEMENTS"]
    if values["placement"] not in placements:
        yield "placement", f"{' or '.join(placements)}: engine {engine} always samples on the host"
    if values["continue_after_walltime"] and not registry.declared("sampler", sampler)["KEYED"]:
        others = " or ".join(_with("sampler", "KEYED", [True]))
        yield (
            "continue_after_walltime",
            f"false: no checkpoint holds {sampler}'s random state, or set sampler: {others}",
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


def _own_options(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for kind in ("model", "method"):
        if heeds(values, kind):
            found |= registry.declared(kind, values[kind]).get("OPTIONS", {})
    return found


def _with(kind: str, declaration: str, among: list[Any]) -> list[str]:
    return [
        name for name in registry.names(kind) if registry.declared(kind, name)[declaration] in among
    ]


def law_of(trial: Trial) -> str:
    """The law by which the trial's sampler draws neighbors."""
    return registry.declared("sampler", trial.sampler)["LAW"]


def samples_where_placed(trial: Trial) -> bool:
    """Whether the trial's engine samples in threads where graph and features are placed, and not in
    PyG's loader processes on the host."""
    return registry.declared("engine", trial.engine)["LOADS"] == "threads"
