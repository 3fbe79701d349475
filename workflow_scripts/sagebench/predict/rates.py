"""How fast a device does each kind of work: measured by calibrate.py, or from the table of cards.

results/rates/<machine>.json holds one record of Rates, with the machine it was measured on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sagebench.errors import UserError
from sagebench.files import read_json
from sagebench.predict.work import Use

FORMAT = 1
PYG_LIB_SLOWER = 6.0
"""pyg-lib's sampler against ours, one thread, [15,10,10,10,10], batch 128, products-sized: 2.7 s
against 0.3 to 0.8 s; for a machine without pyg-lib, where it cannot be measured"""

Curve = tuple[tuple[float, float], ...]
"""(bytes touched, amount a second), ascending in bytes; between the points by their logarithms"""


@dataclass(frozen=True)
class Network:
    """An all-reduce between ranks: what one costs at least, and bytes a second of each rank on the
    ring's 2 (R - 1) / R of them."""

    latency_s: float
    bytes_per_s: float


@dataclass(frozen=True, eq=False)
class Rates:
    """A device, and the host that feeds it.

    source: where the figures come from, for people. relative_error: how far predictions from them
    alone are off, one standard deviation of the logarithm. kinds: for a number of the host's
    threads, 1 among them, and for 0, the GPU, the curves of the kinds of `sagebench.predict.work`.
    cores: of the host, None where not known. start_s: of a trial until its
    first step begins.
    """

    source: str
    device: str
    device_name: str | None
    kinds: Mapping[int, Mapping[str, Curve]]
    relative_error: float
    within_node: Network
    between_nodes: Network
    start_s: float
    machine: str | None = None
    cores: int | None = None
    device_memory_bytes: int | None = None
    loader_start_s: float = 0.1
    """of PyG's loader: its processes are started anew every epoch"""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def seconds(self, uses: Iterable[Use], threads: int) -> float:
        """How long these take one after the other, on `threads` threads of the host; 0: on the
        GPU, which works while the host calls: the longer of the two counts."""
        calls = work = 0.0
        for use in uses:
            time_s = self.one(use, threads)
            if use.kind.startswith("operations"):
                calls += time_s
            else:
                work += time_s
        return calls + work if threads else max(calls, work)

    def one(self, use: Use, threads: int) -> float:
        """Products are on a roofline: as long as their FLOPs take, or their matrices' bytes."""
        if not use.amount:
            return 0.0
        time_s = use.amount / self.per_s(use.kind, use.touched, threads)
        if "products" in use.kind:
            time_s = max(time_s, use.touched / self.per_s("stream", use.touched, threads))
        return time_s

    def per_s(self, kind: str, touched: float, threads: int) -> float:
        """Raises UserError for a kind that was not measured: what a GPU cannot do (bf16 on an
        older one) is no matter for a thread of its host."""
        curve = self._table(threads).get(kind)
        if curve is None and threads:
            curve = self.kinds[1].get(kind)
        if curve is None and kind == "pyg_lib_edges":
            return self.per_s("sampled_edges", touched, threads) / PYG_LIB_SLOWER
        if curve is None:
            raise UserError(
                f"the rates of {self.machine or self.source} have no {kind!r}: measure them again "
                "with `make calibrate`"
            )
        return interpolated(curve, touched)

    def _table(self, threads: int) -> Mapping[str, Curve]:
        """Measured with the most threads that are no more than these."""
        if threads == 0:
            return self.kinds[0]
        return self.kinds[max(count for count in self.kinds if 0 < count <= threads)]

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Rates:
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']}, not {FORMAT}")
        values = {name: value for name, value in record.items() if name != "format"}
        values["kinds"] = {
            int(threads): {
                kind: tuple((float(a), float(b)) for a, b in curve) for kind, curve in table.items()
            }
            for threads, table in values["kinds"].items()
        }
        for name in ("within_node", "between_nodes"):
            values[name] = Network(**values[name])
        return cls(**values)


def interpolated(curve: Curve, touched: float) -> float:
    """The rate where `touched` bytes are gone through; beyond the curve's ends those of the end."""
    (left, rate), *rest = curve
    for right, next_rate in rest:
        if touched < right:
            if touched <= left:
                return rate
            share = math.log(touched / left) / math.log(right / left)
            return rate * (next_rate / rate) ** share
        left, rate = right, next_rate
    return rate


def path_of(results: str | os.PathLike[str], machine: str) -> Path:
    """Where the rates of a machine (a site's label) are kept."""
    return Path(results, "rates", f"{machine}.json")


def load_rates(path: str | os.PathLike[str]) -> Rates | None:
    """The rates in a file, None where there is no file. Raises UserError for one that is none."""
    try:
        return Rates.from_json(read_json(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} are no rates ({type(error).__name__}: {error}): delete it and run "
            "`make calibrate` again"
        ) from None
