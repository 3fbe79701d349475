"""Unseen nodes: a share of a graph's test nodes that an inductive training does not see.

Both settings train on the same labels and are scored on the same unseen nodes. The graph that
training sees has the unseen nodes and their edges in the transductive setting; in the inductive
one an unseen node is in it by its id alone, without neighbors and without being one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagebench.errors import UserError
from sagebench.graph.store import GraphStore, derive_store


def derive_unseen(
    folder: str | os.PathLike[str], base: GraphStore, spec: Mapping[str, Any]
) -> GraphStore:
    """Write and open the store of `base` with the unseen nodes of a data set's spec.

    Raises UserError where the share draws no node, and where groups are asked for that are not.
    """
    by = spec.get("unseen_by") or "node"
    unseen = draw_unseen(base, spec["unseen"], by, spec["split_seed"])
    changed: dict[str, NDArray[Any]] = {"unseen": unseen}
    if spec["setting"] == "inductive":
        colptr, row = without(base.colptr, base.row, unseen)
        changed |= {"colptr": colptr, "row": row}
        changed |= {"whole_colptr": base.colptr, "whole_row": base.row}
    provenance = {
        **base.manifest["provenance"],
        "derived_from": base.checksum,
        "unseen_nodes": len(unseen),
        "unseen_generator": f"numpy {np.__version__}, Philox",
    }
    return derive_store(folder, base, changed, source=spec, provenance=provenance)


def draw_unseen(base: GraphStore, share: float, by: str, seed: int) -> NDArray[np.int64]:
    """Ids of the unseen nodes, ascending: `share` of the test nodes, at least one.

    by: `node`, or `group`: whole groups whose nodes are all test nodes, in a drawn order, as many
    as come nearest to the share from below, at least one.
    """
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *b"unseen"])))
    wanted = share * len(base.test)
    if by == "node":
        drawn = random.permutation(base.test)[: max(1, round(wanted))]
        return np.sort(drawn)
    if base.group is None:
        raise UserError("the data set has no groups of nodes: write unseen_by: node")
    groups, sizes = np.unique(base.group, return_counts=True)
    of_test = np.searchsorted(groups, base.group[base.test])
    tested = np.bincount(of_test, minlength=len(groups))
    whole = np.flatnonzero(tested == sizes)
    if not len(whole):
        raise UserError("no group of nodes lies in the test split alone: write unseen_by: node")
    drawn = random.permutation(whole)
    taken = drawn[: max(1, np.searchsorted(np.cumsum(sizes[drawn]), wanted, side="right"))]
    return base.test[np.isin(of_test, taken)]


def without(
    colptr: NDArray[np.int64], row: NDArray[np.integer[Any]], nodes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.integer[Any]]]:
    """CSC of the graph without any edge from or to `nodes`; ids stay. Memory: ten bytes an edge,
    then eight and the edges that are kept."""
    taken = np.zeros(len(colptr) - 1, bool)
    taken[nodes] = True
    kept = ~taken[row]
    kept &= ~np.repeat(taken, np.diff(colptr))
    return places_of(kept)[colptr], row[kept]


def places_of(kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """int64 [len(kept) + 1]: how many are kept before each place, and in all."""
    places = np.zeros(len(kept) + 1, np.int64)
    np.cumsum(kept, out=places[1:])
    return places
