"""Configurations for tests: a good one, and how to change a value deep inside it."""

from __future__ import annotations

import copy
from typing import Any

from sagebench.grid.configuration import validate
from sagebench.grid.expansion import Study, expand
from sagebench.grid.site import Site, validate_site

WORKSTATION = {
    "machine": "workstation",
    "device": "cpu",
    "devices_per_node": 8,
    "cpus_per_node": 8,
    "memory_per_node_gib": 32,
}
CLUSTER = {
    "machine": "cluster",
    "device": "cuda",
    "nodes": 10,
    "devices_per_node": 4,
    "cpus_per_node": 64,
    "memory_per_node_gib": 480,
    "whole_nodes": True,
    "launcher": "slurm",
    "limits": {"walltime_max_min": 2880},
}
GOOD: dict[str, Any] = {
    "study": "good",
    "dataset": {"name": "pubmed", "source": "pubmed", "split": "large"},
    "defaults": {"epochs": 3},
    "experiments": {
        "batch": {
            "axis": "batch_size",
            "fixed": {"dropout": 0.2},
            "product": {"engine": ["blocks", "reference"]},
            "zip": {"batch_size": [64, 128, 256], "accumulation": [4, 2, 1]},
        },
        "scaling": {"axis": "ranks", "list": [{"ranks": 1}, {"ranks": 2}], "seeds": [0, 1]},
    },
}
REMOVED = object()


def changed(path: str, value: Any = REMOVED) -> dict[str, Any]:
    """GOOD with the value at "a.b.0.c" replaced or removed; missing mappings are made."""
    values = copy.deepcopy(GOOD)
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place: Any = values
    for step in steps:
        place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
    if value is REMOVED:
        del place[last]
    else:
        place[last] = value
    return values


def study_of(values: dict[str, Any], site: dict[str, Any] | Site = WORKSTATION) -> Study:
    return expand(validate(values), site if isinstance(site, Site) else validate_site(site))
