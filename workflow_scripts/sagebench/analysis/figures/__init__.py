"""Figures of the report: a module each, found as `registry` says.

A module has these literals at its top: TITLE, in which {axis} may stand; CAPTION, how to read it;
AXIS, what it is drawn over; and ORDER among the figures of its axis. AXIS is an axis of
experiments, or None: every trial, in both cases in files named as the module; or a mapping: any
axis, in files named MODULE_AXIS, or as the mapping says, where None is an axis that has better
pictures. `draw(data)` gets a `drawing.Data`, and returns a `drawing.Drawing`, or a sentence that
says why there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sagebench import registry

HEADINGS = {
    "batch_size": "Batch size and accumulation",
    "fanout": "Fanout",
    "ranks": "Scaling",
    "method": "What came before GraphSAGE",
    None: "Predictions",
}
"""what figures stand under, where it is not the axis' name; in the order of the report"""


class Declaration(NamedTuple):
    """A figure over one axis. name: of its files."""

    name: str
    module: str
    title: str
    caption: str
    axis: str | None


def declared(axes: Iterable[str]) -> list[Declaration]:
    """The figures of a study with these axes, in the order of the report."""
    found = []
    for axis in [*in_order(axes), None]:
        modules = {name: registry.declared("figure", name) for name in registry.names("figure")}
        for module, literals in sorted(modules.items(), key=lambda item: item[1]["ORDER"]):
            if name := _file_name(module, literals["AXIS"], axis):
                title = literals["TITLE"].format(axis=axis and axis_words(axis))
                found.append(Declaration(name, module, title, literals["CAPTION"], axis))
    return found


def _file_name(module: str, over: object, axis: str | None) -> str | None:
    if isinstance(over, dict):
        return over.get(axis, f"{module}_{axis}") if axis else None
    return module if over == axis else None


def in_order(axes: Iterable[str]) -> list[str]:
    """Each axis once, in the order of the report."""
    each = list(dict.fromkeys(axes))
    return sorted(each, key=[*HEADINGS, *each].index)


def heading(axis: str | None) -> str:
    if axis is None or axis in HEADINGS:
        return HEADINGS[axis]
    words = axis_words(axis)
    return words[0].upper() + words[1:]


def axis_words(axis: str) -> str:
    """ "engine-batch_size": "engine and batch size"."""
    words = (key.removesuffix("_gib").replace("_", " ") for key in axis.split("-"))
    return "number of ranks" if axis == "ranks" else " and ".join(words)
