"""Where graphs come from: each source turns a data set's spec into what `write_store` takes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from sagebench.errors import UserError

# A source's module is imported when it is asked for: only `ogb` needs a CSV reader, for example.
# Each has KEYS, the spec's keys beside name and source, and load(spec, downloads) -> arguments
# of write_store.
SOURCES = ("pubmed", "ogb", "arrays", "synthetic")


def load(spec: Mapping[str, Any], downloads: Path) -> dict[str, Any]:
    """The graph that `spec` names, as keyword arguments of `write_store` (without `source`).

    downloads: folder for archives that are fetched, kept for the next build.
    """
    source = spec.get("source")
    if source not in SOURCES:
        raise UserError(f"source: {source!r} is none of the data sources; write {_one_of(SOURCES)}")
    module = import_module(f"{__name__}.{source}")
    known = ("name", "source", *module.KEYS)
    for key in spec:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"its keys are {', '.join(known)}"
            raise UserError(f"{key!r} is no key of a data set with source: {source}; {hint}")
    # null is what a configuration writes for "as if it were not there"
    return module.load({key: value for key, value in spec.items() if value is not None}, downloads)


def choice(spec: Mapping[str, Any], key: str, choices: tuple[str, ...], default: str) -> str:
    """The spec's value of `key`, one of `choices`."""
    value = spec.get(key, default)
    if value not in choices:
        raise UserError(f"{key}: {value!r} is not known; write {_one_of(choices)}")
    return value


def flag(spec: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """The spec's value of `key`, true or false."""
    value = spec.get(key, default)
    if not isinstance(value, bool):
        raise UserError(f"{key}: {value!r} is no yes or no; write true or false")
    return value


def _one_of(choices: tuple[str, ...]) -> str:
    return " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
