"""Is this a graph one can train on? Each check returns the array in the store's own form.

Every refusal is a UserError that names the array as the user does (edge_index, x, y, train),
where in it the trouble is, and what to give instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagebench.errors import UserError

SPLITS = ("train", "valid", "test")
CHUNK_VALUES = 1 << 24  # values looked at in one go, so that a check costs megabytes, not a copy


def check_edge_index(edge_index: Any, num_nodes: int) -> NDArray[np.integer[Any]]:
    """`edge_index` [2, E] with every id in 0..num_nodes-1, in whatever integer dtype it came."""
    edge_index = np.asarray(edge_index)
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        raise UserError(
            f"edge_index has shape {list(edge_index.shape)}; give [2, E]: row 0 the u, row 1 "
            "the v of u -> v"
        )
    _require_integers("edge_index", edge_index, "node ids")
    _require_range("edge_index", edge_index, num_nodes, f"x has {num_nodes} nodes")
    return edge_index


def check_features(features: Any) -> NDArray[np.float32]:
    """`x` as float32 [N, F], C order, finite, at least one row and one column."""
    features = np.asarray(features)
    if features.ndim != 2:
        raise UserError(f"x has shape {list(features.shape)}; give [N, F]: one row a node")
    if 0 in features.shape:
        raise UserError(f"x has shape {list(features.shape)}; give at least one node and feature")
    if features.dtype.kind not in "fiub":
        raise UserError(f"x has dtype {features.dtype}; give real numbers, for example float32")
    with np.errstate(over="ignore"):  # a float64 too large for float32 is found as inf below
        features = np.ascontiguousarray(features, dtype=np.float32)
    rows = max(1, CHUNK_VALUES // features.shape[1])
    for start in range(0, len(features), rows):
        finite = np.isfinite(features[start : start + rows])
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            value = features[start + row, column]
            raise UserError(
                f"x[{start + row}, {column}] is {value} as float32; give finite numbers only"
            )
    return features


def check_labels(
    labels: Any, num_nodes: int, num_classes: int | None = None, unlabelled: bool = False
) -> tuple[NDArray[np.int64], int]:
    """`y` as int64 [N] and the number of classes. [N, 1] is taken as [N].

    Without `num_classes` the classes are 0..max, and each must have a node: a stray 99 among
    three classes is a mistake far more often than a hundredth class.
    With `unlabelled`, -1 stands for a node without a label.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (num_nodes,):
        raise UserError(f"y has shape {list(labels.shape)}; give [{num_nodes}], as x has rows")
    if labels.dtype.kind == "f":
        labels = _whole_numbers("y", labels, "a class 0, 1, 2, ...")
    _require_integers("y", labels, "classes 0, 1, 2, ...")
    labels = labels.astype(np.int64)
    lowest = -1 if unlabelled else 0
    if labels.min() < lowest:
        at = int(np.argmax(labels < lowest))
        raise UserError(
            f"y[{at}] is {labels[at]}; give a class from 0 on (a node without a label: -1, with "
            "unlabelled: true in the data set's spec)"
        )
    highest = int(labels.max())
    if num_classes is not None:
        if highest >= num_classes:
            at = int(np.argmax(labels >= num_classes))
            raise UserError(
                f"y[{at}] is {labels[at]}; with num_classes: {num_classes} the classes are "
                f"0..{num_classes - 1}"
            )
        return labels, num_classes
    classes = np.unique(labels[labels >= 0])
    if len(classes) <= highest:
        gap = int(np.argmax(classes != np.arange(len(classes))))
        raise UserError(
            f"y has labels up to {highest} but none of class {gap}; number the classes without "
            f"gaps, or give num_classes: {highest + 1} in the data set's spec"
        )
    if highest < 1:
        raise UserError("y has one class only; give at least two, or num_classes in the spec")
    return labels, highest + 1


def check_splits(splits: Mapping[str, Any], labels: NDArray[np.int64]) -> dict[str, NDArray]:
    """train, valid and test as sorted int64 ids; given as ids or as boolean masks [N].

    Each needs a node; no node may be in two of them or twice in one; each node needs a label.
    """
    num_nodes = len(labels)
    owner = np.full(num_nodes, -1, np.int8)
    checked = {}
    for number, name in enumerate(SPLITS):
        if name not in splits:
            raise UserError(f"{name} is missing; give the ids of its nodes")
        ids = _split_ids(name, np.asarray(splits[name]), num_nodes)
        taken = ids[owner[ids] >= 0]
        if len(taken):
            other = SPLITS[owner[taken[0]]]
            raise UserError(
                f"node {taken[0]} is in {other} and in {name} ({len(taken)} such nodes); give "
                "splits that do not overlap"
            )
        if labels[ids].min() < 0:
            at = ids[labels[ids] < 0][0]
            raise UserError(f"node {at} is in {name} but has no label; take it out of {name}")
        owner[ids] = number
        checked[name] = ids
    return checked


def _split_ids(name: str, ids: NDArray, num_nodes: int) -> NDArray[np.int64]:
    if ids.ndim != 1:
        raise UserError(f"{name} has shape {list(ids.shape)}; give one list of node ids")
    if ids.dtype == bool:
        if len(ids) != num_nodes:
            raise UserError(f"{name} is a mask of {len(ids)} values for {num_nodes} nodes")
        ids = np.flatnonzero(ids)
    if not len(ids):
        raise UserError(f"{name} is empty; give it at least one node")
    _require_integers(name, ids, "node ids")
    _require_range(name, ids, num_nodes, f"x has {num_nodes} nodes")
    ids = np.sort(ids.astype(np.int64))
    twice = ids[1:][ids[1:] == ids[:-1]]
    if len(twice):
        raise UserError(f"{name} has node {twice[0]} more than once; give each node once")
    return ids


def _require_integers(name: str, values: NDArray, what: str) -> None:
    if values.dtype.kind not in "iu":
        raise UserError(f"{name} has dtype {values.dtype}; give {what} as integers")


def _whole_numbers(name: str, values: NDArray, what: str) -> NDArray[np.int64]:
    """Floats that are all whole numbers, as int64: some tools save labels as 1.0, 2.0."""
    bad = ~np.isfinite(values) | (values != np.floor(values))
    if bad.any():
        at = int(np.argmax(bad))
        raise UserError(f"{name}[{at}] is {values[at]}; give {what}")
    return values.astype(np.int64)


def _require_range(name: str, ids: NDArray, num_nodes: int, reason: str) -> None:
    if ids.size and (ids.min() < 0 or ids.max() >= num_nodes):
        bad = np.argwhere((ids < 0) | (ids >= num_nodes))[0]
        place = ", ".join(str(i) for i in bad)
        raise UserError(
            f"{name}[{place}] is {ids[tuple(bad)]}; {reason}, so give 0 to {num_nodes - 1}"
        )
