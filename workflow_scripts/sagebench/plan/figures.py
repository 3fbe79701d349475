"""The pictures of the plan's page. Whatever a model says is drawn paler than what was measured."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from sagebench.analysis.placement import place_labels
from sagebench.analysis.style import ALARM, COLOURS, FAINT, INK, SOFT, drawable
from sagebench.estimate.memory import FITS, NO_FIT, TIGHT
from sagebench.plan.frontier import Frontier
from sagebench.plan.rows import ASKED, PREDICTED, PlanRow
from sagebench.units import hours_text

WIDE_IN = 8.6
SPENT = "#0072B2"
ASKED_COLOUR = "#c9ced6"
FIT_COLOURS = {FITS: "#cfe6dc", TIGHT: "#f7dfa5", NO_FIT: "#f0b9b3"}
FIT_PALE = {FITS: "#eef6f2", TIGHT: "#fcf4de", NO_FIT: "#faeae8"}


def as_uri(figure: Figure) -> str:
    """The figure as an SVG in a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def cost(rows: Sequence[PlanRow], unit: str) -> Figure:
    """Hours still to be spent, a bar an experiment, with the interval of what was predicted."""
    names = list(dict.fromkeys(row.experiment for row in rows))
    figure = Figure(figsize=(WIDE_IN, 0.95 + 0.36 * len(names)), layout="constrained")
    axes = figure.subplots()
    widest = 0.0
    for place, name in enumerate(names):
        mine = [row for row in rows if row.experiment == name and row.to_run]
        begin = 0.0
        for source, colour, hatch in (
            (PREDICTED, SPENT, ""),
            (ASKED, ASKED_COLOUR, "////"),
        ):
            hours = sum(row.hours_allocated for row in mine if row.source == source)
            axes.barh(
                place, hours, left=begin, height=0.56, color=colour, hatch=hatch,
                edgecolor="white", linewidth=0,
            )  # fmt: skip
            begin += hours
        low, high = (
            sum(
                row.hours_allocated * getattr(row, end) / row.hours_used
                for row in mine
                if row.hours_used
            )
            for end in ("hours_used_low", "hours_used_high")
        )
        if high > low:
            axes.plot([low, high], [place, place], color=INK, linewidth=1.1, zorder=3)
            axes.plot([low, high], [place, place], "|", color=INK, markersize=6, zorder=3)
        end = max(begin, high)
        widest = max(widest, end)
        spread = f" ({hours_text(low)} to {hours_text(high)})" if high > low else ""
        text = f"{hours_text(begin)}{spread}" if mine else "nothing more to run"
        axes.annotate(
            text, (end, place), xytext=(5, 0), textcoords="offset points", va="center", size=8.5,
            color=INK if mine else SOFT,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), [drawable(name) for name in names])
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_xlim(0, 1.3 * widest or 1)
    axes.set_xlabel(f"{unit} allocated, still to be spent")
    axes.grid(axis="y", visible=False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    sources = {row.source for row in rows if row.to_run}
    handles = []
    if PREDICTED in sources:
        handles.append(Patch(color=SPENT, label="predicted, and nine of ten intervals"))
    if ASKED in sources:
        handles.append(
            Patch(facecolor=ASKED_COLOUR, hatch="////", edgecolor="white", label="asked for")
        )
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=2, handlelength=1.4)
    return figure


def memory_frontier(frontier: Frontier) -> Figure:
    """Batch sizes across, fanouts down: the peak in GiB, and the line behind which none fits."""
    columns, lines = frontier.batch_sizes, frontier.fanouts
    figure = Figure(figsize=(WIDE_IN, 1.25 + 0.27 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for row, fanout in enumerate(lines):
        for column, batch_size in enumerate(columns):
            cell = frontier.cells.get((fanout, batch_size))
            if cell is None:
                continue
            colours = FIT_COLOURS if cell.asked else FIT_PALE
            face = colours.get(cell.fits, "white") if not cell.measured else "white"
            axes.add_patch(
                Rectangle(
                    (column - 0.47, row - 0.44), 0.94, 0.88, facecolor=face, linewidth=1.2,
                    edgecolor=INK if cell.measured else "none", zorder=2,
                )
            )  # fmt: skip
            axes.text(
                column, row, cell.text, ha="center", va="center", zorder=3,
                size=8.5 if cell.asked else 7.5, color=INK if cell.asked else SOFT,
                weight="bold" if cell.measured else "normal",
            )  # fmt: skip
    _staircase(axes, frontier)
    axes.set_xlim(-0.55, len(columns) - 0.45)
    axes.set_ylim(len(lines) - 0.5, -0.55)
    axes.set_xticks(range(len(columns)), [f"{size:,}" for size in columns])
    axes.set_yticks(range(len(lines)), [fanout.replace(",", ", ") for fanout in lines])
    axes.set_xlabel("Batch size (training nodes a rank)")
    axes.set_ylabel("Fanout")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    handles = [
        Patch(color=FIT_COLOURS[fits], label=fits)
        for fits in (FITS, TIGHT, NO_FIT)
        if any(cell.fits == fits for cell in frontier.cells.values())
    ]
    cells = frontier.cells.values()
    if any(cell.measured for cell in cells):
        handles.append(Patch(facecolor="white", edgecolor=INK, label="measured"))
    if any(not cell.asked for cell in cells):
        handles.append(Patch(color="#f1f2f4", label="not in the study, estimated (pale)"))
    figure.legend(handles=handles, loc="outside upper left", ncols=5, handlelength=1.2)
    return figure


def _staircase(axes: Axes, frontier: Frontier) -> None:
    """The line between the last batch size that may fit and the first that does not."""
    edges = []
    for fanout in frontier.fanouts:
        holds = [
            cell.holds if (cell := frontier.cells.get((fanout, size))) else None
            for size in frontier.batch_sizes
        ]
        if False not in holds:
            edges.append(None)
        elif True in holds:
            edges.append(max(column for column, held in enumerate(holds) if held) + 0.5)
        else:
            edges.append(holds.index(False) - 0.5)
    look = {"color": ALARM, "linewidth": 1.6, "zorder": 4, "solid_capstyle": "round"}
    for row, edge in enumerate(edges):
        if edge is None:
            continue
        axes.plot([edge, edge], [row - 0.5, row + 0.5], **look)
        if row and edges[row - 1] is not None:
            axes.plot([edges[row - 1], edge], [row - 0.5, row - 0.5], **look)


def time_accuracy(rows: Sequence[PlanRow]) -> Figure | None:
    """Measured accuracy over the time of a whole trial; trials to come on the axis. None where no
    accuracy was measured."""
    known = [row for row in rows if row.test_accuracy is not None and row.total_h]
    if not known:
        return None
    names = list(dict.fromkeys(row.experiment for row in rows))
    colours = dict(zip(names, COLOURS * (1 + len(names) // len(COLOURS)), strict=False))
    figure = Figure(figsize=(WIDE_IN, 3.6), layout="constrained")
    axes = figure.subplots()
    for row in known:
        axes.plot(
            row.total_h, row.test_accuracy, "o", color=colours[row.experiment], markersize=6,
            markeredgecolor="white", zorder=3,
        )  # fmt: skip
    coming = [row for row in rows if row.to_run and row.total_h and row.source == PREDICTED]
    for row in coming:
        axes.plot(
            row.total_h, 0.02, "|", transform=axes.get_xaxis_transform(), markersize=11,
            color=colours[row.experiment], alpha=0.8,
        )  # fmt: skip
    hours = [row.total_h for row in (*known, *coming)]
    if max(hours) / min(hours) > 10:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        axes.set_xlim(0, 1.1 * max(hours))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(y=0.12)
    axes.set_xlabel("Time of the whole trial, h")
    axes.set_ylabel("Test accuracy, measured")
    axes.grid(color=FAINT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    handles = [
        Line2D([], [], marker="o", linestyle="none", color=colours[name], label=drawable(name))
        for name in names
        if any(row.experiment == name for row in (*known, *coming))
    ]
    if coming:
        handles.append(
            Line2D([], [], marker="|", linestyle="none", color=SOFT, markersize=9,
                   label="to come, predicted")
        )  # fmt: skip
    figure.legend(handles=handles, loc="outside upper left", ncols=4, handlelength=1.0)
    place_labels(
        figure, axes,
        [(r.total_h, r.test_accuracy, _name(r), colours[r.experiment]) for r in front(known)],
    )  # fmt: skip
    return figure


def front(rows: Sequence[PlanRow]) -> list[PlanRow]:
    """Those that no other one beats in both time and accuracy, the fastest first."""
    best: list[PlanRow] = []
    for row in sorted(rows, key=lambda row: (row.total_h, -row.test_accuracy)):
        if not best or row.test_accuracy > best[-1].test_accuracy:
            best.append(row)
    return best


def _name(row: PlanRow) -> str:
    return f"{row.fanout} / {row.batch_size}"
