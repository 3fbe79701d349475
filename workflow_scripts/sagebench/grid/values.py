"""Keys and values of a configuration: their types, and one sentence for each bad one, which says
where it is, what it is and what to write instead."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from sagebench import registry
from sagebench.errors import UserError
from sagebench.registry import one_of

# What a trial can hold: larger ones would be planned, and fail once they run.
COUNT_MAX = 2**31 - 1
SEED_MAX = 2**63 - 1
HOP_MAX = 10_000
"""neighbors of one hop, where it is not every one"""

BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
# What other tools call a key whose name here is not like it.
ALIASES = {
    "learning_rate": ("lr",),
    "hidden_channels": ("hidden_size",),
    "layers": ("depth",),
    "fanout": ("num_neighbors", "neighbors"),
    "ranks": ("gpus", "devices", "world_size"),
    "accumulation": ("grad_accumulation",),
    "product": ("cross", "grid"),
    "list": ("rows",),
}
ELSEWHERE = {
    "seed": "write seeds: [0] beside fixed, in the experiment",
    "device": "the site decides it, in profiles/<name>/site.yaml",
    "machine": "the site decides it, in profiles/<name>/site.yaml",
    "dataset": "write dataset: at the top or in an experiment, beside fixed",
    "site": "give it to Snakemake with --config site=profiles/<name>/site.yaml",
}
EXAMPLES = {
    "study": ", e.g. study: my-study",
    "dataset": ", e.g. dataset: {name: pubmed, source: pubmed, split: large}",
    "experiments": ", e.g. experiments: with at least one experiment below it",
    "axis": ", e.g. axis: batch_size, fanout or ranks",
    "split": ", e.g. split: large",
    "machine": ", e.g. machine: my-cluster",
    "device": ", e.g. device: cuda",
}
"""of keys that must be given"""

Model = TypeVar("Model", bound="Strict")


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


def checked(model: type[Model], values: Any, root: str = "") -> Model:
    """`values` as `model`; raises UserError with one sentence for each bad value, which `root`
    begins."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        said = (root + _sentence(one) for one in error.errors(include_url=False))
        raise UserError("\n".join(dict.fromkeys(said))) from None


def _sentence(details: ErrorDetails) -> str:
    path = ""
    last: int | str = ""
    sources = registry.names("source")
    for step in details["loc"]:
        # pydantic puts a data set's source in though it is no key of the user's.
        if step == "[key]" or (last == "dataset" and step in sources):
            continue
        path, last = path + (f"[{step}]" if isinstance(step, int) else f".{step}"), step
    path, value = path.removeprefix("."), details["input"]
    match details["type"]:
        case "unknown_key":
            key, known = details["ctx"]["key"], details["ctx"]["known"]
            return unknown_key(f"{path}.{key}".removeprefix("."), key, value[key], known)
        case "whole_sentence":
            return f"{path} {details['msg']}".lstrip()
        case "missing":
            return f"{path} is missing: write it{EXAMPLES.get(str(last), '')}."
        case "union_tag_invalid" | "union_tag_not_found":
            return sentence(f"{path}.source", dict(value).get("source"), " or ".join(sources))
        case "list_type":
            entry = value if isinstance(value, str | int | float) else "64, 128"
            return sentence(path, value, f"a list, e.g. [{entry}]")
        case "model_type" | "model_attributes_type" | "dict_type":
            return sentence(path or "the file", value, "keys and their values, key: value")
        case "too_short":
            return sentence(path, value, "at least one entry")
        case "wanted":
            return sentence(path, value, details["msg"])
    return sentence(path, value, f"something else ({details['msg']})")


def sentence(path: str, value: Any, write: str) -> str:
    """ "experiments.batch.zip.batch_size[2] is 'x': write a whole number ..."."""
    return f"{path} is {_shown(value)}: write {write}."


def unknown_key(path: str, key: Any, value: Any, known: Sequence[str]) -> str:
    """The sentence for a key, by its path, that is none of `known`."""
    given, text = f"{path} (given as {_shown(value)})", str(key)
    if text in ELSEWHERE:
        return f"{given} is no key here: {ELSEWHERE[text]}."
    near = [one for one in known if text in ALIASES.get(one, ())]
    near += [one for one in known if text in one]
    near += difflib.get_close_matches(text, known, n=1)
    advice = near[0] if near else f"one of {', '.join(known)}"
    return f"{given} is no known key: write {advice}."


def _shown(value: Any) -> str:
    """A value as one would write it in YAML, shortened."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def wanted(what: str) -> PydanticCustomError:
    """The error of a bad value; `what` completes the sentence "write ..."."""
    return PydanticCustomError("wanted", "{what}", {"what": what})


def whole_sentence(text: str) -> PydanticCustomError:
    """The error of a mapping; `text` comes behind its path."""
    return PydanticCustomError("whole_sentence", "{text}", {"text": text})


def worded(kind: Any, what: str | Callable[[Any], str]) -> Any:
    """`kind`, whose error says to write `what`, which may depend on the value."""

    def check(value: Any, validate: Callable[[Any], Any]) -> Any:
        try:
            return validate(value)
        except ValidationError:
            raise wanted(what(value) if callable(what) else what) from None

    return Annotated[kind, WrapValidator(check)]


def key(default: Any, text: str, alias: str | None = None) -> Any:
    """A key of a mapping, with what it is; it must be given where its default is `...`."""
    return Field(default, description=text, alias=alias)


def whole(low: int, example: int, high: int = COUNT_MAX, *, none: bool = False) -> Any:
    """An int from `low` to `high`, both included, or null where `none`; 128.0 is one, "128" and
    true are none."""
    kind = Annotated[int, Field(ge=low, le=high)]
    return _number(kind, f"a whole number from {low} to {high}", example, none)


def number(example: float, *, none: bool = False, **bounds: float) -> Any:
    """A finite float between `bounds`, by pydantic's names of them, or null where `none`."""
    words = " and ".join(f"{BOUNDS[name]} {bound}" for name, bound in bounds.items())
    kind = Annotated[float, Field(**bounds, allow_inf_nan=False)]
    return _number(kind, f"a number {words}", example, none)


def _number(kind: Any, what: str, example: float, none: bool) -> Any:
    kind = Annotated[kind, BeforeValidator(_no_text)]
    or_null = ", or null for none" if none else ""
    return worded(
        kind | None if none else kind,
        lambda value: f"{what}, e.g. {_unquoted(value) or example}{or_null}",
    )


def _no_text(value: Any) -> Any:
    """To pydantic "128" and true are numbers, too."""
    if isinstance(value, str | bool):
        raise ValueError
    return value


def _unquoted(value: Any) -> str:
    """The number that a text shows, as YAML reads it: the hint is the user's own value."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        return ""
    text = f"{number:.15g}"
    text = text if "." in text else text.replace("e", ".0e")
    return f"{text} without quotes (YAML reads {value} as text)"


def choice(*options: str) -> Any:
    """One of a few words."""
    return worded(Literal[options], lambda value: one_of(value, options))


def matching(pattern: str, what: str | Callable[[Any], str]) -> Any:
    """A text of one form; `what` names the form."""
    return worded(Annotated[str, Field(pattern=pattern)], what)


Flag = worded(StrictBool, "true or false")


def _plain_name(value: Any) -> str:
    near = re.sub(r"[^A-Za-z0-9_-]+", "-", str(value)).strip("-_")[:60] or "batch"
    return f"a plain name of at most 60 letters, digits, - and _, e.g. {near}"


Name = matching(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$", _plain_name)
# Spaces, quotes, $ and ` are welcome; a brace would be a wildcard of Snakemake.
FilePath = matching(
    r"^[^{}\x00-\x1f-][^{}\x00-\x1f]*$",
    "a path without { } and control characters, and - not first, e.g. data/graph",
)
Text = matching(r"^[^\x00]*[^\s\x00][^\x00]*$", "a line of text, in quotes if it holds a colon")


def _zeros_last(hops: tuple[int, ...]) -> tuple[int, ...]:
    taken = [hop for hop in hops if hop]
    if 0 in hops[: len(taken)]:
        raise wanted(
            f"zeros only at the end, e.g. {taken + [0] * (len(hops) - len(taken))}: "
            "behind a hop that takes no neighbors there are no nodes to expand"
        )
    return hops


_Hop = Annotated[int, Field(ge=-1, le=HOP_MAX), BeforeValidator(_no_text)]
Fanout: Any = Annotated[
    worded(
        Annotated[tuple[_Hop, ...], Field(min_length=1)],
        "a list of one whole number a layer, e.g. [15, 10, 10, 10, 10] "
        f"(neighbors a hop, {HOP_MAX} at most; -1: every one; 0: none)",
    ),
    AfterValidator(_zeros_last),
]
