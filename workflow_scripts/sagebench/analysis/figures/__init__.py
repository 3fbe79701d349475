"""Figures of the report: a module each, named as its files, found as `registry` says.

A module has these literals at its top: TITLE; CAPTION, how to read it; AXIS, of the experiments
that it draws (None: every trial); and ORDER among the figures of its axis. Its `draw(trials,
epochs, not_run)` gets the trials of that axis with their `series`, all epochs, and the trials that
were left out; it returns a `Drawing`, or a sentence that says why there is nothing to draw. Helpers
begin with an underscore.
"""

from __future__ import annotations

from typing import NamedTuple

from sagebench import registry

HEADINGS = {
    "batch_size": "Batch size and accumulation",
    "fanout": "Fanout",
    "ranks": "Scaling",
    None: "Predictions",
}
"""what figures stand under, by axis"""


class Declaration(NamedTuple):
    """What a figure's module says of it."""

    name: str
    title: str
    caption: str
    axis: str | None
    order: int


def declared() -> list[Declaration]:
    """Every figure, in the order of the report."""
    found = []
    for name in registry.names("figure"):
        literals = registry.declared("figure", name)
        found.append(Declaration(name, *(literals[one.upper()] for one in Declaration._fields[1:])))
    return sorted(found, key=lambda one: (list(HEADINGS).index(one.axis), one.order, one.name))
