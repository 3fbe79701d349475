"""The configuration file: what a study's YAML may hold, as types that write its JSON schema too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from sagebench.errors import UserError
from sagebench.graph import sources
from sagebench.grid import messages
from sagebench.grid.trial_file import CHOICES
from sagebench.grid.values import (
    SEED_MAX,
    Fanout,
    FilePath,
    Flag,
    Name,
    Text,
    choice,
    matching,
    number,
    optional,
    whole,
    whole_sentence,
)

RESERVED_STUDIES = ("trials", "stores", "probes", "pilots", "rates", "preflight")


class Strict(BaseModel):
    """A mapping with no keys but its own; the error for another one names the nearest."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in known:
                    raise PydanticCustomError("unknown_key", "", {"key": key, "known": known})
        return data


SHA256 = matching("^[0-9a-f]{64}$", "64 hexadecimal digits, or null")
# False is the same as not given, and so makes no other data set.
Switch = Annotated[Flag | None, AfterValidator(lambda given: True if given else None)]
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
"""by the `type` of an option that a data source declares (graph/sources)"""


def _option(*, type: str, help: str, default: Any = ..., **bounds: Any) -> tuple[Any, FieldInfo]:
    kind = OPTION_TYPES[type](**bounds)
    return kind | None if default is None else kind, Field(default, description=help)


def _source(source: str) -> type[Strict]:
    """The spec of a data set from this source."""
    summary, options = sources.declaration(source)
    return create_model(
        source.capitalize(),
        __base__=Strict,
        __doc__=summary,
        name=(Name, Field(description="folder name of the graph store")),
        source=(Literal[source], ...),
        **{key: _option(**option) for key, option in options.items()},
    )


SOURCES = {source: _source(source) for source in sources.names()}
Dataset = Annotated[Union[tuple(SOURCES.values())], Field(discriminator="source")]  # noqa: UP007


class DatasetAlone(Strict):
    """A data set outside of a study."""

    dataset: Dataset


# Every flat key: its type, what it falls back to, what it is and its unit.
KEYS: dict[str, tuple[Any, Any, str]] = {
    "engine": (
        choice(*CHOICES["engine"]),
        "blocks",
        "blocks: bipartite blocks; reference: the slides' path, every layer on every sampled node; "
        "trimmed: the same with PyG's trim_to_layer",
    ),
    "sampler": (
        choice(*CHOICES["sampler"]),
        "sagebench",
        "sagebench: our own; pyg_lib: PyG's NeighborLoader, where pyg-lib is installed",
    ),
    "layers": (whole(1, 5, 16), 5, "SAGE layers"),
    "hidden_channels": (whole(1, 256), 256, "width of the hidden layers"),
    "dropout": (number(0.5, low=0, below=1), 0.5, "share of the hidden values that is dropped"),
    "aggregator": (choice(*CHOICES["aggregator"]), "mean", "how neighbors are combined"),
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
    "optimizer": (choice(*CHOICES["optimizer"]), "adam", "the optimizer"),
    "learning_rate": (number(0.001, above=0), 0.001, "of one rank, before scaling"),
    "learning_rate_scaling": (
        choice(*CHOICES["learning_rate_scaling"]),
        "linear",
        "how the learning rate grows with the number of ranks",
    ),
    "evaluate_every_epochs": (whole(1, 5), 5, "epochs from one validation to the next"),
    "patience_evaluations": (
        optional(whole(1, 10), 10),
        10,
        "validations without a better score before training stops; null: never",
    ),
    "validation": (
        choice(*CHOICES["validation"]),
        "full",
        "full: layer by layer over the full graph; sampled: with the trial's own fanout",
    ),
    "phase_window_steps": (
        whole(0, 10),
        10,
        "micro-steps of the window that times the phases, behind the timed epochs",
    ),
    "profile_steps": (
        whole(0, 3, 100),
        0,
        "micro-steps to profile behind the phases' window: a table of kernels and a trace beside "
        "the outcome; 0: none",
    ),
    "sampled_test_nodes": (
        optional(whole(1, 160000), 160000),
        None,
        "test nodes whose neighborhoods are sampled for the test accuracy `sampled`, the same in "
        "every trial; null: all",
    ),
    "precision": (
        choice(*CHOICES["precision"]),
        "fp32",
        "of the arithmetic; tf32: in matrix products, on a GPU; bf16: parameters stay fp32",
    ),
    "compile": (Flag, False, "the model's dense parts by torch.compile"),
    "placement": (
        choice(*CHOICES["placement"]),
        "auto",
        "of engine blocks: device: graph and features resident there, sampled there; host: sampled "
        "and gathered on the host; auto: by their sizes",
    ),
    "memory_limit_gib": (
        optional(number(40.0, above=0), 40),
        None,
        "GiB that one rank may use; null: what its device has",
    ),
    "walltime_min": (whole(1, 60), 60, "minutes asked for; decides nothing of what is run"),
    "continue_after_walltime": (
        Flag,
        False,
        "true: past its walltime, or asked to stop, a trial is continued by the next job to the "
        "same result; false: past its walltime it ends as time_limit",
    ),
}


def _field(kind: Any, default: Any, description: str) -> tuple[Any, FieldInfo]:
    return kind, Field(default, description=description)


def _unset(kind: Any, description: str) -> tuple[Any, FieldInfo]:
    """A key that may be left out and then is not there at all."""
    hidden = {"json_schema_extra": lambda schema: schema.pop("default", None)}
    return kind, Field(None, description=description, **hidden)


def _columns(kind: Any) -> Any:
    return Annotated[list[kind], Field(min_length=1)]


Defaults: type[Strict] = create_model(
    "Defaults",
    __base__=Strict,
    **{key: _field(*entry) for key, entry in KEYS.items()},
)
Values: type[Strict] = create_model(
    "Values",
    __base__=Strict,
    **{key: _unset(kind, text) for key, (kind, _, text) in KEYS.items()},
)
Columns: type[Strict] = create_model(
    "Columns",
    __base__=Strict,
    **{key: _unset(_columns(kind), text) for key, (kind, _, text) in KEYS.items()},
)


class EqualColumns(Columns):
    """Columns of one table: the first entries belong together, then the second ones, ..."""

    @model_validator(mode="after")
    def _equal_lengths(self) -> EqualColumns:
        given = [key for key in type(self).model_fields if key in self.model_fields_set]
        lengths = {key: len(getattr(self, key)) for key in given}
        if len(set(lengths.values())) > 1:
            counted = ", ".join(f"{length} of {key}" for key, length in lengths.items())
            raise whole_sentence(f"holds {counted}: write as many entries for each.")
        return self


class Experiment(Strict):
    """A named part of the grid: what is crossed, what goes together, what is fixed."""

    title: Text = Field("", description="a line of text for tables and figures; else its name")
    axis: choice("batch_size", "fanout", "ranks") = Field(
        description="what it studies, and so which figures it feeds"
    )
    dataset: Dataset | None = Field(None, description="instead of the study's data set")
    fixed: Values = Field(default_factory=Values, description="instead of the study's defaults")
    product: Columns | None = Field(None, description="a list for each key; all are crossed")
    zipped: EqualColumns | None = Field(
        None, alias="zip", description="lists of equal length; entries at one place go together"
    )
    rows: Annotated[list[Values], Field(min_length=1)] | None = Field(
        None, alias="list", description="explicit rows of keys and values"
    )
    seeds: Annotated[list[whole(0, 0, SEED_MAX)], Field(min_length=1)] = Field(
        [0], description="one repeat for each"
    )

    @model_validator(mode="after")
    def _something_to_vary(self) -> Experiment:
        for key, grid in (("product", self.product), ("zip", self.zipped)):
            if grid is not None and not grid.model_fields_set:
                raise whole_sentence(
                    f"holds an empty {key}: write at least one key with a list, or leave it out."
                )
        return self


class Configuration(Strict):
    """A study: its data, the defaults of its trials, and its experiments."""

    extends: FilePath | None = Field(
        None,
        description="another file, beside this one, that this one is laid over",
    )
    study: Name = Field(description="its name, and its folder below results")
    results: FilePath = Field("results", description="folder for everything that is made")
    dataset: Dataset = Field(description="the data set of every experiment without its own")
    defaults: Defaults = Field(
        default_factory=Defaults, description="values of every trial that no experiment sets"
    )
    experiments: Annotated[dict[Name, Experiment], Field(min_length=1)] = Field(
        description="the experiments, by name"
    )
    max_trials: whole(1, 100_000) = Field(
        100_000, description="a study that asks for more is refused before any is made"
    )
    budget_node_hours: optional(number(100.0, above=0), 100) = Field(
        None,
        description="a run whose trials take more is refused before its first job; null: none",
    )
    skip_predicted_out_of_memory: Flag = Field(
        False, description="true: trials predicted not to fit in memory are not run"
    )
    walltime_from_prediction: optional(number(1.5, low=1), 1.5) = Field(
        None,
        description="jobs ask for so many times the predicted time, walltime_min at most; null: "
        "for walltime_min",
    )

    @model_validator(mode="after")
    def _not_reserved(self) -> Configuration:
        if self.study in RESERVED_STUDIES:
            raise whole_sentence(
                f"study is '{self.study}': write another name, this folder is sagebench's own."
            )
        return self

    def complete(self) -> dict[str, Any]:
        """The configuration as plain JSON types, with every default of the study written out."""
        experiments = {
            name: experiment.model_dump(mode="json", by_alias=True, exclude_unset=True)
            for name, experiment in self.experiments.items()
        }
        whole = self.model_dump(mode="json", exclude={"extends", "experiments"})
        return {**whole, "experiments": experiments}


def validate(values: Mapping[str, Any]) -> Configuration:
    """The configuration in `values`; raises UserError with one sentence for each bad value."""
    return checked(Configuration, values)


def checked(model: type[Strict], values: Any, root: str = "") -> Any:
    """`values` as `model`; raises UserError with one sentence for each bad value."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(messages.sentences(error, tags=SOURCES, root=root)) from None


def checked_dataset(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A data set's spec, complete; raises UserError with one sentence for each bad value."""
    return checked(DatasetAlone, {"dataset": spec}).dataset.model_dump()


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file, for editors."""
    schema = Configuration.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
