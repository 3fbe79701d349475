"""One sentence for each bad value: where it is, what it is, what to write."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

# What other tools call a key, and what to say to who looks for one that is not there.
ALIASES = {
    "lr": "learning_rate",
    "hidden": "hidden_channels",
    "hidden_size": "hidden_channels",
    "num_layers": "layers",
    "depth": "layers",
    "num_workers": "sampling_workers",
    "workers": "sampling_workers",
    "num_neighbors": "fanout",
    "neighbors": "fanout",
    "gpus": "ranks",
    "devices": "ranks",
    "world_size": "ranks",
    "grad_accumulation": "accumulation",
    "threads": "threads_per_rank",
    "patience": "patience_evaluations",
    "walltime": "walltime_min",
    "memory_limit": "memory_limit_gib",
    "cross": "product",
    "grid": "product",
    "rows": "list",
}
ELSEWHERE = {
    "seed": "write seeds: [0] beside fixed, in the experiment",
    "device": "the site decides it, in profiles/<name>/site.yaml",
    "machine": "the site decides it, in profiles/<name>/site.yaml",
    "dataset": "write dataset: at the top or in an experiment, beside fixed",
    "site": "give it to Snakemake with --config site=profiles/<name>/site.yaml",
}


def sentence(path: str, value: Any, write: str) -> str:
    """ "experiments.batch.zip.batch_size[2] is 'x': write a whole number ..."."""
    return f"{path} is {shown(value)}: write {write}."


def shown(value: Any) -> str:
    """A value as one would write it in YAML, shortened."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping) and not isinstance(value, dict):
        value = dict(value)
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def path_text(location: Iterable[str | int], root: str = "") -> str:
    """("experiments", "batch", "zip", "batch_size", 2) -> "experiments.batch.zip.batch_size[2]"."""
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    if not root or not text:
        return root + text
    return root + text if root.endswith(" ") else f"{root}.{text}"


def unknown_key(path: str, key: Any, value: Any, known: Sequence[str]) -> str:
    """The sentence for a key that is none of `known`."""
    where = path_text([str(key)], path)
    if key in ELSEWHERE:
        return f"{where} (given as {shown(value)}) is no key here: {ELSEWHERE[key]}."
    alias = ALIASES.get(str(key))
    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
    best = [alias] if alias in known else near
    advice = f"write {best[0]}" if best else f"write one of {', '.join(known)}"
    return f"{where} (given as {shown(value)}) is no known key: {advice}."


def sentences(error: ValidationError, tags: Iterable[str] = (), root: str = "") -> str:
    """All sentences of a validation error, one a line.

    `tags` are the names of discriminated types, which pydantic puts into a location though they
    are no keys of the user's; `root` names the file where that helps.
    """
    found = [_one(details, frozenset(tags), root) for details in error.errors(include_url=False)]
    return "\n".join(dict.fromkeys(found))


def _one(details: ErrorDetails, tags: frozenset[str], root: str) -> str:
    location = [
        step
        for step, before in zip(details["loc"], ("", *details["loc"]), strict=False)
        if not (before == "dataset" and step in tags) and step != "[key]"
    ]
    path, value, context = path_text(location, root), details["input"], details.get("ctx", {})
    match details["type"]:
        case "wanted":
            return sentence(path, value, context["what"])
        case "unknown_key":
            return unknown_key(path, context["key"], value[context["key"]], context["known"])
        case "whole_sentence":
            return f"{path.rstrip() + ' ' if path else ''}{details['msg']}"
        case "missing":
            return f"{path} is missing: write it{_example(str(location[-1]))}."
        case "union_tag_invalid" | "union_tag_not_found":
            named = value.get("source") if isinstance(value, Mapping) else None
            return sentence(f"{path}.source", named, " or ".join(sorted(tags)))
        case "model_type" | "dict_type" | "model_attributes_type":
            return sentence(path or "the file", value, "keys and their values, key: value")
        case "list_type":
            return sentence(path, value, f"a list, e.g. [{_bare(value)}]")
        case "too_short":
            return sentence(path, value, "at least one entry, or leave the key out")
    return sentence(path, value, f"something else ({details['msg']})")


def _bare(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float) else "64, 128"


_EXAMPLES = {
    "study": "study: my-study",
    "dataset": "dataset: {name: pubmed, source: pubmed, split: large}",
    "experiments": "experiments: with at least one experiment below it",
    "name": "name: my-graph",
    "axis": "axis: batch_size, fanout or ranks",
    "path": "path: data/my-graph.npz",
    "ogb_name": "ogb_name: ogbn-products",
    "scale": "scale: 0.01",
    "split": "split: large",
    "machine": "machine: my-cluster",
    "device": "device: cuda",
}


def _example(key: str) -> str:
    return f", e.g. {_EXAMPLES[key]}" if key in _EXAMPLES else ""
