"""Validation of a graph's arrays; each check returns the array in the store's dtype and shape.

Every refusal is a UserError that names the array as the user does (edge_index, x, y, train),
where in it the trouble is, and what to give instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sagebench.errors import UserError

SPLITS = ("train", "valid", "test")
CHUNK_VALUES = 1 << 24  # values looked at in one go, so that a check costs megabytes, not a copy


def check_edge_index(edge_index: ArrayLike, num_nodes: int) -> NDArray[np.integer[Any]]:
    """`edge_index` [2, E] with every id in 0..num_nodes-1, in whatever integer dtype it came."""
    edge_index = np.asarray(edge_index)
    wanted = "[2, E] integers: row 0 the u, row 1 the v of u -> v"
    _require(edge_index.shape[:-1] == (2,), "iu", "edge_index", edge_index, wanted)
    _require_ids("edge_index", edge_index, num_nodes)
    return edge_index


def check_features(features: ArrayLike) -> NDArray[np.float32]:
    """`x` as float32 [N, F], C order, finite, at least one row and one column."""
    features = np.asarray(features)
    wanted = "[N, F] real numbers: one row a node, and at least one node and feature"
    _require(features.ndim == 2 and 0 not in features.shape, "fiub", "x", features, wanted)
    with np.errstate(over="ignore"):  # a float64 too large for float32 is found as inf below
        features = np.ascontiguousarray(features, dtype=np.float32)
    rows = max(1, CHUNK_VALUES // features.shape[1])
    for start in range(0, len(features), rows):
        if not np.isfinite(features[start : start + rows]).all():
            _refuse_first(~np.isfinite(features), "x", features, "give finite float32 numbers only")
    return features


def check_labels(
    labels: ArrayLike, num_nodes: int, num_classes: int | None = None, unlabelled: bool = False
) -> tuple[NDArray[np.int64], int]:
    """`y` as int64 [N] and the number of classes. [N, 1] is taken as [N], and 1.0 as 1.

    Without `num_classes` the classes are 0..max, and each must have a node: a stray 99 among
    three classes is a mistake far more often than a hundredth class.
    With `unlabelled`, -1 stands for a node without a label.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    wanted = f"[{num_nodes}] integers, a class 0, 1, 2, ... for each row of x"
    _require(labels.shape == (num_nodes,), "fiu", "y", labels, wanted)
    if labels.dtype.kind == "f":
        broken = ~np.isfinite(labels) | (labels != np.floor(labels))
        _refuse_first(broken, "y", labels, "give a class 0, 1, 2, ...")
    labels = labels.astype(np.int64)
    advice = "give a class from 0 on"
    if not unlabelled:
        advice += " (a node without a label: -1, with unlabelled: true in the data set's spec)"
    _refuse_first(labels < (-1 if unlabelled else 0), "y", labels, advice)
    if num_classes is not None:
        advice = f"with num_classes: {num_classes} the classes are 0..{num_classes - 1}"
        _refuse_first(labels >= num_classes, "y", labels, advice)
        return labels, num_classes
    classes = np.unique(labels[labels >= 0])
    highest = int(labels.max())
    if len(classes) <= highest:
        gap = int(np.argmax(classes != np.arange(len(classes))))
        raise UserError(
            f"y has labels up to {highest} but none of class {gap}; number the classes without "
            f"gaps, or give num_classes: {highest + 1} in the data set's spec"
        )
    if highest < 1:
        raise UserError("y has one class only; give at least two, or num_classes in the spec")
    return labels, highest + 1


def check_splits(splits: Mapping[str, ArrayLike], labels: NDArray[np.int64]) -> dict[str, NDArray]:
    """train, valid and test as sorted int64 ids; given as ids or as boolean masks [N].

    Each needs a node; no node may be in two of them or twice in one; each node needs a label.
    """
    owner = np.full(len(labels), -1, np.int8)
    checked = {}
    for number, name in enumerate(SPLITS):
        ids = np.asarray(splits[name])
        if not ids.size:
            raise UserError(f"{name} is empty; give it at least one node")
        _require(ids.ndim == 1, "iub", name, ids, "one list of node ids, integers, or one mask")
        if ids.dtype == bool:
            if len(ids) != len(labels):
                raise UserError(f"{name} is a mask of {len(ids)} values for {len(labels)} nodes")
            ids = np.flatnonzero(ids)
        if not len(ids):
            raise UserError(f"{name} is empty; give it at least one node")
        _require_ids(name, ids, len(labels))
        checked[name] = ids = np.sort(ids.astype(np.int64))
        if len(twice := ids[1:][ids[1:] == ids[:-1]]):
            raise UserError(f"{name} has node {twice[0]} more than once; give each node once")
        if len(taken := ids[owner[ids] >= 0]):
            raise UserError(
                f"node {taken[0]} is in {SPLITS[owner[taken[0]]]} and in {name} ({len(taken)} such "
                "nodes); give splits that do not overlap"
            )
        if len(bare := ids[labels[ids] < 0]):
            raise UserError(f"node {bare[0]} is in {name} but has no label; take it out of {name}")
        owner[ids] = number
    return checked


def check_group(group: ArrayLike, num_nodes: int) -> NDArray[np.int64]:
    """`group` as int64 [N], any numbers."""
    group = np.asarray(group)
    _require(group.shape == (num_nodes,), "iu", "group", group, f"[{num_nodes}] integers")
    return group.astype(np.int64)


def _require(fits: bool, kinds: str, name: str, values: NDArray, wanted: str) -> None:
    """UserError unless the shape `fits` and the dtype is of one of NumPy's `kinds`."""
    if not fits:
        raise UserError(f"{name} has shape {list(values.shape)}; give {wanted}")
    if values.dtype.kind not in kinds:
        raise UserError(f"{name} has dtype {values.dtype}; give {wanted}")


def _require_ids(name: str, ids: NDArray, num_nodes: int) -> None:
    if ids.size and (ids.min() < 0 or ids.max() >= num_nodes):
        advice = f"x has {num_nodes} nodes, so give 0 to {num_nodes - 1}"
        _refuse_first((ids < 0) | (ids >= num_nodes), name, ids, advice)


def _refuse_first(bad: NDArray[np.bool_], name: str, values: NDArray, advice: str) -> None:
    """UserError for the first of the `values` that is `bad`, where one is."""
    if bad.any():
        at = np.argwhere(bad)[0]
        raise UserError(f"{name}[{', '.join(map(str, at))}] is {values[tuple(at)]}; {advice}")
