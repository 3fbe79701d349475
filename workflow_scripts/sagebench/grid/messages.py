"""One sentence for each bad value: where it is, what it is, what to write."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

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
_KEYS = "keys and their values, key: value"
# What to write, by pydantic's name of the error.
ADVICE = {
    "model_type": _KEYS,
    "model_attributes_type": _KEYS,
    "dict_type": _KEYS,
    "too_short": "at least one entry",
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


def sentence(path: str, value: Any, write: str) -> str:
    """ "experiments.batch.zip.batch_size[2] is 'x': write a whole number ..."."""
    return f"{path} is {shown(value)}: write {write}."


def shown(value: Any) -> str:
    """A value as one would write it in YAML, shortened."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def path_text(location: Iterable[str | int]) -> str:
    """("experiments", "batch", "zip", "batch_size", 2) -> "experiments.batch.zip.batch_size[2]"."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return "".join(steps).removeprefix(".")


def unknown_key(path: str, key: Any, value: Any, known: Sequence[str]) -> str:
    """The sentence for a key, by its path, that is none of `known`."""
    given, text = f"{path} (given as {shown(value)})", str(key)
    if text in ELSEWHERE:
        return f"{given} is no key here: {ELSEWHERE[text]}."
    near = [one for one in known if text in ALIASES.get(one, ())]
    near += [one for one in known if text in one]
    near += difflib.get_close_matches(text, known, n=1)
    advice = near[0] if near else f"one of {', '.join(known)}"
    return f"{given} is no known key: write {advice}."


def sentences(error: ValidationError, tags: Iterable[str] = (), root: str = "") -> str:
    """All sentences of a validation error, one a line.

    `tags` are the names of discriminated types, which pydantic puts into a location though they
    are no keys of the user's; `root` names the file where that helps.
    """
    found = [root + _one(details, sorted(tags)) for details in error.errors(include_url=False)]
    return "\n".join(dict.fromkeys(found))


def _one(details: ErrorDetails, tags: Sequence[str]) -> str:
    location: list[str | int] = []
    for step in details["loc"]:
        if step != "[key]" and not (location[-1:] == ["dataset"] and step in tags):
            location.append(step)
    path, value, kind = path_text(location), details["input"], details["type"]
    match kind:
        case "unknown_key":
            key, known = details["ctx"]["key"], details["ctx"]["known"]
            return unknown_key(path_text([*location, str(key)]), key, value[key], known)
        case "whole_sentence":
            return f"{path} {details['msg']}".lstrip()
        case "missing":
            return f"{path} is missing: write it{EXAMPLES.get(str(location[-1]), '')}."
        case "union_tag_invalid" | "union_tag_not_found":
            return sentence(f"{path}.source", dict(value).get("source"), " or ".join(tags))
        case "list_type":
            entry = value if isinstance(value, str | int | float) else "64, 128"
            return sentence(path, value, f"a list, e.g. [{entry}]")
        case "wanted":
            return sentence(path, value, details["msg"])
    advice = ADVICE.get(kind, f"something else ({details['msg']})")
    return sentence(path or "the file", value, advice)
