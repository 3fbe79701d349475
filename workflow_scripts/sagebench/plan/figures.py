"""The memory frontier of the plan's page."""

from __future__ import annotations

import base64
import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from sagebench.analysis.style import ALARM, INK, SOFT
from sagebench.estimate.memory import FITS, NO_FIT, TIGHT
from sagebench.plan.frontier import Frontier

WIDE_IN = 8.6
FIT_COLOURS = {FITS: "#cfe6dc", TIGHT: "#f7dfa5", NO_FIT: "#f0b9b3"}
FIT_PALE = {FITS: "#eef6f2", TIGHT: "#fcf4de", NO_FIT: "#faeae8"}


def as_uri(figure: Figure) -> str:
    """The figure as an SVG in a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


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
