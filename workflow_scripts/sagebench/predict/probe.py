"""The probe of a store: what training will sample, learnt on a CPU from a few micro-batches.

results/probes/<store>.json holds {"format", "store_checksum", "store": GraphFacts, "samples":
{"<fanout>/<batch size>": Sample}}. Samples are added to it and never taken twice; it starts anew
when the store's checksum is another one. Reading it takes neither torch nor numba.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagebench.errors import UserError
from sagebench.files import read_json, write_json
from sagebench.grid.trial import Trial
from sagebench.predict.interpolation import anchors, interpolate
from sagebench.predict.samples import GraphFacts, Sample, sample_name

if TYPE_CHECKING:
    from sagebench.graph.store import GraphStore

FORMAT = 1

Request = tuple[tuple[int, ...], int]
"""(fanout, batch size)"""


@dataclass
class Probe:
    """What is known of a store and of its samples."""

    store_checksum: str
    graph: GraphFacts
    samples: dict[str, Sample] = field(default_factory=dict)

    def sample_of(self, trial: Trial) -> Sample | None:
        """What the trial samples; None where that was not probed."""
        return self.samples.get(sample_name(trial.fanout, trial.batch_size))

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "store_checksum": self.store_checksum,
            "store": self.graph.to_json(),
            "samples": {name: sample.to_json() for name, sample in self.samples.items()},
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Probe:
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']}, this version reads {FORMAT}")
        return cls(
            record["store_checksum"],
            GraphFacts.from_json(record["store"]),
            {name: Sample.from_json(name, value) for name, value in record["samples"].items()},
        )


def path_of(results: str | os.PathLike[str], store: str) -> Path:
    """Where the probe of a store (its folder's name) is kept."""
    return Path(results, "probes", f"{store}.json")


def load_probe(path: str | os.PathLike[str]) -> Probe | None:
    """The probe in a file; None: no such file. Raises UserError for a file that is none."""
    try:
        return Probe.from_json(read_json(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no probe ({type(error).__name__}: {error}): delete it, `snakemake probe` "
            "makes it again"
        ) from None


def probe_store(
    store: GraphStore,
    requests: Iterable[Request],
    path: str | os.PathLike[str],
    *,
    threads: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Probe:
    """Take the samples of `requests` that the probe in `path` lacks, and add them to it.

    It is written after every sample, so that a probe that was interrupted goes on where it was. A
    file that is no probe, or one of another graph, is replaced. threads: micro-batches sampled at
    a time. say: is given a line a sample.
    """
    path = Path(path)
    with _only_one(path):
        probe = _still_good(path, store.checksum) or Probe(store.checksum, graph_facts(store))
        missing: dict[tuple[int, ...], list[int]] = {}
        for fanout, batch_size in sorted(set(requests)):
            if sample_name(fanout, batch_size) not in probe.samples:
                missing.setdefault(fanout, []).append(batch_size)
        if missing:
            from sagebench.predict.counting import Counter

            counter = Counter(store, threads)
        for fanout, sizes in missing.items():
            known = [s for s in probe.samples.values() if s.fanout == fanout and s.sampled]
            for size in anchors(sizes, (sample.batch_size for sample in known)):
                known.append(counter.take(fanout, size))
                _add(probe, known[-1], path, say)
            for size in sizes:
                if sample_name(fanout, size) not in probe.samples:
                    _add(probe, interpolate(known, size, len(store.train)), path, say)
    return probe


def graph_facts(store: GraphStore) -> GraphFacts:
    return GraphFacts(
        num_nodes=store.num_nodes,
        num_edges=store.num_edges,
        num_features=store.num_features,
        num_classes=store.num_classes,
        train_nodes=len(store.train),
        valid_nodes=len(store.valid),
        test_nodes=len(store.test),
        index_bytes=store.colptr.nbytes + store.row.nbytes,
        feature_bytes=store.features.nbytes,
    )


def _add(probe: Probe, sample: Sample, path: Path, say: Callable[[str], None]) -> None:
    name = sample_name(sample.fanout, sample.batch_size)
    probe.samples[name] = sample
    write_json(path, probe.to_json())
    source = f"from {sample.batches} micro-batches" if sample.sampled else "interpolated"
    say(f"{name}: {sample.nodes.mean:,.0f} nodes, {sample.edges.mean:,.0f} edges, {source}")


def _still_good(path: Path, checksum: str) -> Probe | None:
    """The probe that is there, if it is a whole one and of this very graph."""
    with contextlib.suppress(UserError):
        probe = load_probe(path)
        if probe is not None and probe.store_checksum == checksum:
            return probe
    return None


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Wait until nobody else probes the same store; the lock goes with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
