"""The plan's page: one self-contained HTML file, with the memory frontier of each engine: batch
size x fanout, as the study asks for them, and the cells between."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from sagebench.estimate.memory import FITS, NO_FIT, TIGHT, UNLIKELY, verdict
from sagebench.estimate.probe import axes_of, cells_between
from sagebench.grid.expansion import Study
from sagebench.page import as_yaml, render_page, style, svg_uri
from sagebench.plan.forecast import Forecaster, model_version
from sagebench.plan.limits import hints, sentences
from sagebench.plan.rows import PlanRow, distinct, total_of
from sagebench.plan.tables import MARKS, device_word, every_trial, experiments
from sagebench.records import Status
from sagebench.units import GIB, hours_text

TEMPLATE = Path(__file__).parent / "templates" / "plan.html"
ROWS_SHOWN = 1000
"""trials of the page's table; plan.csv has all"""
WIDE_IN = 8.6
FIT_COLOURS = {FITS: "#cfe6dc", TIGHT: "#f7dfa5", NO_FIT: "#f0b9b3"}
FIT_PALE = {FITS: "#eef6f2", TIGHT: "#fcf4de", NO_FIT: "#faeae8"}


def render(study: Study, rows: Sequence[PlanRow], forecaster: Forecaster) -> str:
    """The page of the plan that the rows are."""
    trials, unit = distinct(rows), device_word(study)
    return render_page(
        TEMPLATE,
        study=study.name,
        machine=study.site.machine,
        unit=unit,
        total=total_of(rows),
        hours=hours_text,
        verdicts={fits: sum(row.fits == fits for row in trials) for fits in MARKS},
        marks=MARKS,
        hints=hints(study, rows, lambda target: f"snakemake {target}"),
        warnings=sentences(study, rows),
        experiments=experiments(rows, unit),
        memory=list(_pictures(study, rows, forecaster)),
        every_trial=every_trial(study, rows[:ROWS_SHOWN]),
        left_out=max(0, len(rows) - ROWS_SHOWN),
        basis=_basis(study, trials, forecaster),
        unlikely=UNLIKELY,
        configuration=as_yaml(study.configuration.complete()),
    )


def _basis(
    study: Study, trials: Sequence[PlanRow], forecaster: Forecaster
) -> list[tuple[str, list[str]]]:
    """Basis of the estimates, by topic."""
    rows, site = [row for row in trials if not row.measured], study.site
    billed = "the devices that a trial asks for are billed"
    if site.whole_nodes:
        billed = f"whole nodes of {site.devices_per_node} devices are billed"
    topics = [
        ("Times", sorted({row.time_source for row in rows if row.time_source})),
        ("Memory limit", _limits(rows, "{:.1f} GiB a rank ({})")),
        ("Energy", sorted({row.energy_source for row in rows if row.energy_source})),
        ("Data sheet", [forecaster.card.data_sheet] if forecaster.card else []),
        ("Model", [model_version()] if any(row.sampled for row in rows) else []),
        ("Hours", [billed]),
    ]
    return [(topic, values) for topic, values in topics if values]


def _limits(rows: Sequence[PlanRow], said: str) -> list[str]:
    """Limits that the memory verdicts of the rows refer to, in the words of `said`."""
    known = {(row.memory_limit_bytes, row.memory_limit) for row in rows}
    return sorted({said.format(size / GIB, name) for size, name in known if size is not None})


def _pictures(
    study: Study, rows: Sequence[PlanRow], forecaster: Forecaster
) -> Iterator[tuple[str, str, str]]:
    """Title, caption and picture of each memory frontier."""
    for frontier in frontiers(study, rows, forecaster):
        drawn = io.BytesIO()
        with style.look():
            memory_frontier(frontier).savefig(
                drawn, format="svg", metadata={"Date": None, "Creator": None}
            )
        title = f"Memory frontier, engine {frontier.engine}"
        yield title, frontier.caption, svg_uri(drawn.getvalue())


@dataclass(frozen=True)
class Cell:
    """memory_bytes: what the fullest rank needs; where it was measured, its peak. asked: by the
    study; else it is a cell between. ended: of what was measured."""

    memory_bytes: float | None
    fits: str | None
    asked: bool
    ended: Status | None = None

    @property
    def holds(self) -> bool | None:
        """Whether memory suffices, or may; None where nobody knows."""
        if self.ended:
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
            return "OOM" if self.holds is False else self.ended.words if self.ended else ""
        gib = self.memory_bytes / GIB
        return f"{gib:.2g}" if gib < 1 else f"{gib:.1f}" if gib < 100 else f"{gib:,.0f}"


@dataclass(frozen=True)
class Frontier:
    """Memory frontier of one engine. fanouts: by rising memory. limit: what the verdicts refer to.
    left_out: fanouts and batch sizes that there is no room for."""

    engine: str
    fanouts: list[str]
    batch_sizes: list[int]
    cells: dict[tuple[str, int], Cell]
    limit: str
    left_out: int

    @property
    def caption(self) -> str:
        said = (
            "GiB that the fullest rank needs to train; of a measured trial its peak, which counts "
            f"what its allocator kept, too. The limit: {self.limit}."
        )
        if any(cell.fits == NO_FIT for cell in self.cells.values()):
            said += " Left of the red line fits or is tight, right of it does not fit."
        if not all(cell.asked for cell in self.cells.values()):
            said += (
                " Pale cells are no trials of this study: they are probed like the others, where "
                "a batch size of the same fanout is asked for that is twice or half as large."
            )
        if self.left_out:
            said += f" {self.left_out} more fanouts and batch sizes have no room here."
        return said


def frontiers(study: Study, rows: Sequence[PlanRow], forecaster: Forecaster) -> list[Frontier]:
    """One for each engine of which the memory of some trial is known."""
    rows = [row for row in rows if row.fanout is not None]  # a method without has no picture
    known = dict.fromkeys(row.engine for row in rows if row.peak_memory_bytes is not None)
    return [
        _frontier(study, [row for row in rows if row.engine == engine], forecaster)
        for engine in known
    ]


def _frontier(study: Study, rows: Sequence[PlanRow], forecaster: Forecaster) -> Frontier:
    cells: dict[tuple[str, int], Cell] = {}
    for row in rows:
        assert row.fanout is not None and row.batch_size is not None
        memory = row.peak_memory_bytes if row.measured else row.needed_memory_bytes
        cell = Cell(memory, row.fits, True, row.status if row.measured else None)
        before = cells.get((row.fanout, row.batch_size))
        if before is None or cell.demand > before.demand:
            cells[row.fanout, row.batch_size] = cell
    requests = [study.requests[row.trial] for row in rows]
    trials, stores = [one.trial for one in requests], {one.store for one in requests}
    fanouts, batch_sizes = axes_of(trials)
    probe = forecaster.probes.get(stores.pop()) if len(stores) == 1 else None
    if probe is not None:
        for trial in cells_between(trials, probe.graph.train_nodes):
            if made := forecaster.memory(trial, probe):
                cell = Cell(made.needed_bytes, verdict(made.out_of_memory_chance), False)
                cells[str(trial.fanout), trial.batch_size] = cell
    bytes_a_seed = dict.fromkeys(map(str, fanouts), 0.0)
    for (fanout, batch_size), cell in cells.items():
        if fanout in bytes_a_seed:
            bytes_a_seed[fanout] = max(bytes_a_seed[fanout], (cell.memory_bytes or 0) / batch_size)
    asked = len({row.fanout for row in rows}) + len({row.batch_size for row in rows})
    return Frontier(
        engine=rows[0].engine,
        fanouts=sorted(bytes_a_seed, key=bytes_a_seed.__getitem__),
        batch_sizes=batch_sizes,
        cells=cells,
        limit=", ".join(_limits(rows, "{:.3g} GiB ({})")) or "no limit known",
        left_out=asked - len(fanouts) - len(batch_sizes),
    )


def memory_frontier(frontier: Frontier) -> Figure:
    """Batch sizes across, fanouts down: the peak in GiB, and the line behind which none fits."""
    columns, lines, cells = frontier.batch_sizes, frontier.fanouts, frontier.cells
    figure = Figure(figsize=(WIDE_IN, 1.25 + 0.27 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for row, fanout in enumerate(lines):
        for column, batch_size in enumerate(columns):
            if cell := cells.get((fanout, batch_size)):
                _draw(axes, cell, row, column)
    _staircase(axes, frontier)
    axes.set_xlim(-0.55, len(columns) - 0.45)
    axes.set_ylim(len(lines) - 0.5, -0.55)
    axes.set_xticks(range(len(columns)), [f"{size:,}" for size in columns])
    axes.set_yticks(range(len(lines)), [fanout.replace(",", ", ") for fanout in lines])
    axes.set_xlabel("Batch size (training nodes a rank)")
    axes.set_ylabel("Fanout")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    there = {cell.fits for cell in cells.values()}
    handles = [Patch(color=FIT_COLOURS[fits], label=fits) for fits in FIT_COLOURS if fits in there]
    if any(cell.ended for cell in cells.values()):
        handles.append(Patch(facecolor="white", edgecolor=style.INK, label="measured"))
    if any(not cell.asked for cell in cells.values()):
        handles.append(Patch(color="#f1f2f4", label="not in the study, estimated (pale)"))
    figure.legend(handles=handles, loc="outside upper left", ncols=5, handlelength=1.2)
    return figure


def _draw(axes: Axes, cell: Cell, row: int, column: int) -> None:
    colours = {} if cell.ended else FIT_COLOURS if cell.asked else FIT_PALE
    axes.add_patch(
        Rectangle(
            (column - 0.47, row - 0.44), 0.94, 0.88, linewidth=1.2, zorder=2,
            facecolor=colours.get(cell.fits or "", "white"),
            edgecolor=style.INK if cell.ended else "none",
        )
    )  # fmt: skip
    axes.text(
        column, row, cell.text, ha="center", va="center", zorder=3,
        size=8.5 if cell.asked else 7.5, color=style.INK if cell.asked else style.SOFT,
        weight="bold" if cell.ended else "normal",
    )  # fmt: skip


def _staircase(axes: Axes, frontier: Frontier) -> None:
    """The line between the last batch size that may fit and the first that does not."""
    edges, heights = [], []
    for row, fanout in enumerate(frontier.fanouts):
        found = [frontier.cells.get((fanout, size)) for size in frontier.batch_sizes]
        holds = [cell and cell.holds for cell in found]
        edge = math.nan  # breaks the line
        if False in holds:
            last = max((k for k, held in enumerate(holds) if held), default=holds.index(False) - 1)
            edge = last + 0.5
        edges += [edge, edge]
        heights += [row - 0.5, row + 0.5]
    if not all(map(math.isnan, edges)):
        axes.plot(edges, heights, color=style.ALARM, lw=1.6, zorder=4, solid_capstyle="round")
