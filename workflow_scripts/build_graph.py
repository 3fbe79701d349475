"""Build a graph store from a data set's spec."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sagebench import registry
from sagebench.errors import UserError, run_script, script_parser
from sagebench.graph.store import MANIFEST, GraphStore, write_store
from sagebench.graph.unseen import derive_unseen
from sagebench.grid.configuration import checked_dataset
from sagebench.grid.trial import base_dataset, draws_split, store_name


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument(
        "--spec",
        required=True,
        help="the data set's spec: JSON, or the path of a JSON file, "
        'for example {"name": "pubmed", "source": "pubmed", "split": "large"}',
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the store")
    arguments = parser.parse_args()
    # A batch system ends a job with SIGTERM: as an exception it takes the half-written store along.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # Archives stay beside the store, for the next build.
    store = build(read_spec(arguments.spec), arguments.out, arguments.out.parent / ".downloads")
    print(
        f"{store.path}: {store.num_nodes:,} nodes, {store.num_edges:,} directed edges, "
        f"{store.num_features} features, {store.num_classes} classes, "
        f"{len(store.train):,} / {len(store.valid):,} / {len(store.test):,} train / valid / test"
    )


def build(spec: dict[str, Any], out: Path, downloads: Path) -> GraphStore:
    """The store of a data set. One with unseen nodes is made of another beside it, which is built
    where it is not there."""
    with named_in_errors(spec):
        checked = checked_dataset(spec)
    if draws_split(spec) and spec.get("split_seed") is None:
        spec = {**spec, "split_seed": 0}
    if base := base_dataset(spec):
        folder = out.parent / store_name(base)
        there = (folder / MANIFEST).exists()
        of = GraphStore.open(folder) if there else build(base, folder, downloads)
        with named_in_errors(spec):
            return derive_unseen(out, of, spec)
    with named_in_errors(spec):
        checked["split_seed"] = spec.get("split_seed")
        source = registry.load("source", checked["source"])
        return write_store(out, source=spec, **source.load(checked, downloads))


@contextmanager
def named_in_errors(spec: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"data set {spec.get('name', spec.get('source'))}: {error}") from None


def read_spec(text: str) -> dict[str, Any]:
    try:
        spec = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--spec is neither JSON nor a readable JSON file ({error})") from None
    if not isinstance(spec, dict):
        raise UserError('--spec is no JSON object; write {"name": ..., "source": ...}')
    return spec


if __name__ == "__main__":
    run_script(main)
