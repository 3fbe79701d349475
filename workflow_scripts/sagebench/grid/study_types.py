"""The types of a configuration: its keys, data sets, experiments.

They depend on what modules there are, plug-ins too: `configuration.types` reloads this module where
those are others.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, BeforeValidator, Field, create_model
from pydantic.fields import FieldInfo

from sagebench import registry
from sagebench.errors import UserError
from sagebench.grid.trial import CHOICES, REGISTERED, UNSEEN_KEYS, draws_split
from sagebench.grid.values import (
    SEED_MAX,
    Fanout,
    FilePath,
    Flag,
    Name,
    Strict,
    Text,
    choice,
    key,
    matching,
    number,
    wanted,
    whole,
    whole_sentence,
    worded,
)
from sagebench.registry import Option

RESERVED_STUDIES = ("trials", "stores", "probes", "pilots", "rates", "preflight")


def _not_reserved(name: str) -> str:
    if name in RESERVED_STUDIES:
        raise wanted("another name: this folder is sagebench's own")
    return name


def _not_empty(kind: Any) -> Any:
    return Annotated[kind, Field(min_length=1)]


SHA256 = matching("^[0-9a-f]{64}$", "64 hexadecimal digits, or null")
# False is the same as not given, and so makes no other data set.
Switch: Any = Annotated[Flag | None, AfterValidator(lambda given: True if given else None)]
OPTION_TYPES: dict[str, Callable[..., Any]] = {
    "choice": lambda choices: choice(*choices),
    "flag": lambda: Flag,
    "switch": lambda: Switch,
    "path": lambda: FilePath,
    "sha256": lambda: SHA256,
    "number": number,
    "whole": whole,
    "seed": lambda: whole(0, 0, SEED_MAX),
}
"""by the `type` of an option that a module declares (registry.py)"""
ABOUT_OPTION = ("type", "help", "default", "divides", "at_most", "drawn")
"""the rest of what it declares bounds its type"""


def word(key: str) -> Any:
    return choice(*CHOICES[key])


def named(kind: str, default: str) -> tuple[Any, str, str]:
    """A key whose values are the names of modules of its kind."""
    names = registry.names(kind)

    def instead(value: Any) -> str:
        """What to write; of a name of another kind, where."""
        others = (one for one in REGISTERED if value in registry.names(one))
        where = next((f"; {value} is a {one}: write {one}: {value}" for one in others), "")
        return registry.one_of(value, names) + where

    described = (f"{name}: {registry.described(kind, name)}" for name in names)
    present = BeforeValidator(
        lambda name: registry.present_name(name) if isinstance(name, str) else name
    )
    return Annotated[worded(Literal[names], instead), present], default, "; ".join(described)


# Every flat key: its type, what it falls back to, what it is and its unit.
KEYS: dict[str, tuple[Any, Any, str]] = {
    "method": named("method", "minibatch"),
    "engine": named("engine", "blocks"),
    "sampler": named("sampler", "uniform"),
    "model": named("model", "sage"),
    "layers": (whole(1, 5, 16), 5, "layers of the model"),
    "hidden_channels": (whole(1, 256), 256, "width of the hidden layers"),
    "dropout": (number(0.5, ge=0, lt=1), 0.5, "share of the hidden values that is dropped"),
    "aggregator": (word("aggregator"), "mean", "how neighbors are combined"),
    "batch_size": (whole(1, 128), 128, "seeds of one micro-batch of one rank"),
    "accumulation": (whole(1, 5), 5, "micro-batches of one optimizer step of one rank"),
    "fanout": (
        Fanout,
        (15, 10, 10, 10, 10),
        "neighbors a hop, one number a layer, from the seeds outward; -1: every one; 0: none",
    ),
    "ranks": (whole(1, 4), 1, "processes, one a device"),
    "threads_per_rank": (whole(1, 4), 1, "CPU threads of the training process"),
    "sampling_workers": (whole(0, 4), 1, "background samplers of one rank; 0: none"),
    "epochs": (whole(1, 10), 10, "passes over the training nodes"),
    "optimizer": (word("optimizer"), "adam", "the optimizer"),
    "learning_rate": (number(0.001, gt=0), 0.001, "of one rank, before scaling"),
    "learning_rate_scaling": (word("learning_rate_scaling"), "linear", "with the number of ranks"),
    "weight_decay": (number(0, ge=0), 0.0, "times a parameter, added to its gradient"),
    "evaluate_every_epochs": (whole(1, 5), 5, "epochs from one validation to the next"),
    "patience_evaluations": (
        whole(1, 10, none=True),
        10,
        "validations without a better score before training stops; null: never",
    ),
    "validation": (word("validation"), "full", "over the full graph, or with the trial's fanout"),
    "phase_window_steps": (whole(0, 10), 10, "micro-steps that time the phases; 0: none"),
    "profile_steps": (whole(0, 3, 100), 0, "micro-steps to profile behind all others; 0: none"),
    "sampled_test_nodes": (
        whole(1, 160000, none=True),
        None,
        "test nodes whose neighborhoods are sampled for the test accuracy `sampled`; null: all",
    ),
    "precision": (
        word("precision"),
        "fp32",
        "of the arithmetic; tf32: in matrix products, on a GPU; bf16: parameters stay fp32",
    ),
    "compile": (Flag, False, "the model's dense parts by torch.compile"),
    "kernels": (
        word("kernels"),
        "auto",
        "auto: Triton's on a GPU; plain: torch's operations",
    ),
    "placement": (word("placement"), "auto", "of graph and features, engine blocks; auto: by size"),
    "memory_limit_gib": (number(40, gt=0, none=True), None, "of one rank; null: its device's"),
    "walltime_min": (whole(1, 60), 60, "minutes asked for; decides nothing of what is run"),
    "continue_after_walltime": (Flag, False, "true: the next job goes on; false: time_limit"),
}


def _option(owner: str, key: str, option: Option) -> tuple[Any, FieldInfo]:
    """The type of an option, and its field. Raises UserError for a declaration that is no good."""
    bounds = {name: value for name, value in option.items() if name not in ABOUT_OPTION}
    default: Any = option.get("default", ...)
    try:
        kind, text = OPTION_TYPES[option["type"]](**bounds), option["help"]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{owner} declares {key} wrongly ({type(error).__name__}: {error}): docs/extending.md "
            "says what OPTIONS may hold"
        ) from None
    return kind | None if default is None else kind, Field(default, description=text)


SET_APART = {
    "setting": (
        choice("transductive", "inductive") | None,
        "null: no node is set apart; inductive: the unseen nodes and their edges are not in the "
        "graph that training sees; transductive: they are",
    ),
    "unseen": (number(0.2, gt=0, le=1) | None, "share of the test nodes that is unseen"),
    "unseen_by": (
        choice("node", "group") | None,
        "null: node; group: whole groups of nodes are unseen, where the data set has groups",
    ),
    "split_seed": (
        whole(0, 0, SEED_MAX) | None,
        "by which unseen nodes are drawn, and a split that is drawn; null: the trial's own seed",
    ),
}
"""keys of every data set"""


def _with_unseen(spec: Any) -> Any:
    """Unseen nodes have a setting and a share; a seed has something to draw."""
    if spec.setting is None:
        given = [key for key in UNSEEN_KEYS if getattr(spec, key) is not None]
        if given:
            raise whole_sentence(
                f"has {given[0]}, but no setting: write setting: transductive or inductive beside "
                "it."
            )
    elif spec.unseen is None:
        raise whole_sentence(
            "has a setting, but no unseen: write a share of the test nodes, e.g. unseen: 0.2."
        )
    if spec.unseen_by == "group" and not registry.declared("source", spec.source).get(
        "GROUPED", True
    ):
        raise whole_sentence(
            f"has unseen_by: group, and source {spec.source} has no groups of nodes: write "
            "unseen_by: node."
        )
    if spec.split_seed is not None and not draws_split(spec.model_dump()):
        raise whole_sentence(
            "has split_seed, and nothing of its split is drawn: leave it out, or write a setting."
        )
    return spec


def _source(source: str) -> type[Strict]:
    """The spec of a data set from this source."""
    options = registry.declared("source", source)["OPTIONS"]
    fields: dict[str, Any] = {
        "name": (Name, Field(description="folder name of the graph store")),
        "source": (Literal[source], ...),
        **{key: _option(f"source {source}", key, option) for key, option in options.items()},
        **{key: (kind, Field(None, description=text)) for key, (kind, text) in SET_APART.items()},
    }
    doc = registry.described("source", source)
    return create_model(source.capitalize(), __base__=Strict, __doc__=doc, **fields)


SOURCES = {source: _source(source) for source in registry.names("source")}
Dataset: Any = Annotated[
    Union[tuple(SOURCES.values())],  # noqa: UP007
    Field(discriminator="source"),
    AfterValidator(_with_unseen),
]


class DatasetAlone(Strict):
    """A data set outside of a study."""

    dataset: Dataset


def _owned(key: str, owners: Mapping[str, Option]) -> tuple[Any, None, str]:
    """An option of models and methods, where it is given; its default is their own."""
    for owner, option in owners.items():
        if key in KEYS:
            raise UserError(f"{owner} declares {key}, a key that every trial has: rename it")
        if "default" not in option:
            raise UserError(f"{owner} declares {key} without a default: write one in its OPTIONS")
    kinds = tuple(_option(owner, key, option)[0] for owner, option in owners.items())
    described = (
        f"{owner}, {o['default']} unless given: {o['help']}" for owner, o in owners.items()
    )
    return Union[kinds] | None, None, "; ".join(described)  # noqa: UP007


KEYS |= {key: _owned(key, owners) for key, owners in registry.option_owners().items()}


def _without_default(schema: dict[str, Any]) -> None:
    """A key that is left out is not there at all."""
    schema.pop("default", None)


_VALUES: dict[str, Any] = {
    key: (kind, Field(default, description=text)) for key, (kind, default, text) in KEYS.items()
}
_COLUMNS: dict[str, Any] = {
    key: (_not_empty(list[kind]), Field(None, description=text, json_schema_extra=_without_default))
    for key, (kind, _, text) in KEYS.items()
}
Values: Any = create_model("Values", __base__=Strict, **_VALUES)
Columns: Any = create_model("Columns", __base__=Strict, **_COLUMNS)


def _equal_lengths(columns: Strict) -> Strict:
    """Rows of one table: the first entries belong together, then the second ones, ..."""
    lengths = {key: len(column) for key, column in columns if column is not None}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{length} of {key}" for key, length in lengths.items())
        raise whole_sentence(f"holds {counted}: write as many entries for each.")
    return columns


_AXES = tuple(key for key in KEYS if key not in ("walltime_min", "continue_after_walltime"))


def _an_axis(value: Any) -> Any:
    keys = value if isinstance(value, list) else [value]
    wrong = [str(key) for key in keys if key not in _AXES]
    if wrong or not keys or len(set(keys)) < len(keys):
        near = difflib.get_close_matches("".join(wrong[:1]), _AXES, n=1, cutoff=0.5)
        example = near[0] if near else "batch_size"
        raise wanted(f"a key of a trial, e.g. {example}, or a list of some, each once")
    return value


Axis: Any = Annotated[Literal[_AXES] | _not_empty(list[Literal[_AXES]]), BeforeValidator(_an_axis)]


class Experiment(Strict):
    """A named part of the grid: what is crossed, what goes together, what is fixed."""

    title: Text = key("", "a line of text for tables and figures; else its name")
    axis: Axis = key(
        ..., "what it studies, and so is drawn over: a key, or a list of keys that go together"
    )
    dataset: Dataset | None = key(None, "instead of the study's data set")
    fixed: Values = Field(default_factory=Values, description="instead of the study's defaults")
    product: Columns | None = key(None, "a list for each key; all are crossed")
    zipped: Annotated[Columns, AfterValidator(_equal_lengths)] | None = key(
        None, "lists of equal length; entries at one place go together", alias="zip"
    )
    rows: _not_empty(list[Values]) | None = key(None, "rows of keys and values", alias="list")
    seeds: _not_empty(list[whole(0, 0, SEED_MAX)]) = key([0], "one repeat for each")


class Configuration(Strict):
    """A study: its data, the defaults of its trials, and its experiments."""

    extends: FilePath | None = key(
        None, "another file beside this one, which this one is laid over"
    )
    study: Annotated[Name, AfterValidator(_not_reserved)] = key(
        ..., "its name, and its folder below results"
    )
    results: FilePath = key("results", "folder for everything that is made")
    plugins: list[FilePath] = key([], "files or folders of models, engines, ... beside this file")
    dataset: Dataset = key(..., "the data set of every experiment without its own")
    defaults: Values = Field(
        default_factory=Values, description="values of every trial that no experiment sets"
    )
    experiments: _not_empty(dict[Name, Experiment]) = key(..., "the experiments, by name")
    max_trials: whole(1, 100_000) = key(100_000, "a study that asks for more is refused")
    budget_node_hours: number(100, gt=0, none=True) = key(None, "a run that takes more is refused")
    skip_predicted_out_of_memory: Flag = key(False, "true: what will not fit is not run")
    walltime_from_prediction: number(1.5, ge=1, none=True) = key(
        None, "jobs ask for so many times their estimated time; null: for walltime_min"
    )

    def complete(self) -> dict[str, Any]:
        """The configuration as plain JSON types, with every default of the study written out."""
        experiments = {
            name: experiment.model_dump(mode="json", by_alias=True, exclude_unset=True)
            for name, experiment in self.experiments.items()
        }
        whole = self.model_dump(mode="json", exclude={"extends", "experiments"})
        return {**whole, "experiments": experiments}


PLUGINS = registry.plugins()  # that all of this is made for; not set where one of them is bad
