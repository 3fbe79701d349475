"""The memory of batch size x fanout: what the study asks for, and the cells between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sagebench.estimate.grid_cells import axes_of, cells_between
from sagebench.estimate.memory import NO_FIT, verdict
from sagebench.grid.expansion import Study
from sagebench.plan.forecast import Forecaster
from sagebench.plan.rows import PlanRow
from sagebench.records import Status
from sagebench.units import GIB


@dataclass(frozen=True)
class Cell:
    """memory_bytes: what the fullest rank needs; where it was measured, its peak. asked: by the
    study; else it is a cell between."""

    memory_bytes: float | None
    fits: str | None
    asked: bool
    measured: bool
    ended: Status | None  # a measured end without a value

    @property
    def holds(self) -> bool | None:
        """Whether memory suffices, or may; None where nobody knows."""
        if self.measured:
            return self.ended != Status.OUT_OF_MEMORY
        return None if self.fits is None else self.fits != NO_FIT

    @property
    def demand(self) -> tuple[bool, float]:
        """Of trials that share a cell the one with most is shown: it may have less memory, too."""
        return self.holds is False, self.memory_bytes or 0

    @property
    def text(self) -> str:
        """GiB; of a measured end without any, what it was."""
        if self.memory_bytes is None:
            if self.ended is Status.OUT_OF_MEMORY or self.fits == NO_FIT:  # a pilot ran out
                return "OOM"
            return self.ended.words if self.ended else ""
        gib = self.memory_bytes / GIB
        return f"{gib:.2g}" if gib < 1 else f"{gib:.1f}" if gib < 100 else f"{gib:,.0f}"


@dataclass(frozen=True)
class Frontier:
    """Of one engine. fanouts: from the least memory to the most."""

    engine: str
    fanouts: list[str]
    batch_sizes: list[int]
    cells: dict[tuple[str, int], Cell]
    limit: str  # what the verdicts refer to
    left_out: int  # fanouts and batch sizes that there is no room for


def frontiers(study: Study, rows: Sequence[PlanRow], forecaster: Forecaster) -> list[Frontier]:
    """One for each engine of which the memory of some trial is known."""
    found = []
    for engine in dict.fromkeys(row.engine for row in rows):
        mine = [row for row in rows if row.engine == engine]
        known = [row for row in mine if row.peak_memory_bytes is not None]
        if known:
            found.append(_frontier(study, engine, mine, forecaster))
    return found


def _frontier(
    study: Study, engine: str, rows: Sequence[PlanRow], forecaster: Forecaster
) -> Frontier:
    cells: dict[tuple[str, int], Cell] = {}
    for row in rows:
        memory = row.peak_memory_bytes if row.measured else row.needed_memory_bytes
        cell = Cell(memory, row.fits, True, row.measured, row.status if row.measured else None)
        before = cells.get((row.fanout, row.batch_size))
        if before is None or cell.demand > before.demand:
            cells[row.fanout, row.batch_size] = cell
    trials = [study.requests[row.trial].trial for row in rows]
    fanouts, batch_sizes = axes_of(trials)
    limits = {(row.memory_limit_bytes, row.memory_limit) for row in rows}
    stores = {study.requests[row.trial].store for row in rows}
    probe = forecaster.probes.get(stores.pop()) if len(stores) == 1 else None
    for trial in cells_between(trials, probe.graph.train_nodes) if probe else ():
        estimate = forecaster.memory(trial, probe)
        if estimate is not None:
            chance = estimate.out_of_memory_chance
            fits = None if chance is None else verdict(chance)
            cell = Cell(estimate.needed_bytes, fits, False, False, None)
            cells[str(trial.fanout), trial.batch_size] = cell
    known = [f"{limit / GIB:.3g} GiB ({what})" for limit, what in limits if limit is not None]
    middle = Counter(row.batch_size for row in rows).most_common(1)[0][0]

    def demand(fanout: str) -> float:
        cell = cells.get((fanout, middle))
        return (cell and cell.memory_bytes) or max(
            (c.memory_bytes or 0 for (f, _), c in cells.items() if f == fanout), default=0
        )

    return Frontier(
        engine=engine,
        fanouts=sorted(map(str, fanouts), key=demand),
        batch_sizes=batch_sizes,
        cells=cells,
        limit=", ".join(sorted(set(known))) or "no limit known",
        left_out=len({r.fanout for r in rows})
        - len(fanouts)
        + len({r.batch_size for r in rows})
        - len(batch_sizes),
    )
