"""Small labels beside points, where they cover neither points nor each other."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

DIRECTIONS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (1, 0), (0, -1), (-1, 0))
RINGS_PT = (7.5, 11.0, 15.0, 20.0)
SIZE_PT = 7.5
HAIR = {"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 2, "shrinkB": 2}

Box = tuple[float, float, float, float]


def place_labels(
    figure: Figure, axes: Axes, labels: Sequence[tuple[float, float, str, str]]
) -> None:
    """Write each (x, y, text, colour) near its point; far ones get a hair line to it."""
    figure.canvas.draw()  # so that data becomes positions
    points_pt = 72 / figure.dpi
    points = [axes.transData.transform((x, y)) * points_pt for x, y, _, _ in labels]
    offsets = choose_offsets([(float(x), float(y)) for x, y in points], [len(t[2]) for t in labels])
    for (x, y, text, colour), (right, up) in zip(labels, offsets, strict=True):
        far = max(abs(right), abs(up)) > RINGS_PT[0]
        axes.annotate(
            text,
            (x, y),
            xytext=(right, up),
            textcoords="offset points",
            size=SIZE_PT,
            color=colour,
            ha="center",
            va="center",
            zorder=5,
            annotation_clip=False,
            path_effects=[withStroke(linewidth=2, foreground="white")],
            arrowprops={**HAIR, "color": colour} if far else None,
        )


def choose_offsets(
    points: Sequence[tuple[float, float]], lengths: Sequence[int]
) -> list[tuple[float, float]]:
    """For each point an offset of its label, all in typographic points; greedy, deterministic.

    Near places first, then the one that overlaps least with points and labels already there.
    """
    taken: list[Box] = [(x - 3.5, y - 3.5, x + 3.5, y + 3.5) for x, y in points]
    offsets = []
    for (x, y), length in zip(points, lengths, strict=True):
        width, height = length * SIZE_PT * 0.64 + 1, SIZE_PT + 1
        candidates = []
        for ring, reach in enumerate(RINGS_PT):
            for order, (right, up) in enumerate(DIRECTIONS):
                offset = (right * (reach + width / 2 - 3), up * reach)
                cx, cy = x + offset[0], y + offset[1]
                box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
                cost = 20 * sum(_overlap(box, other) for other in taken) + 8 * ring + order
                candidates.append((cost, offset, box))
        _, offset, box = min(candidates, key=lambda candidate: candidate[0])
        taken.append(box)
        offsets.append(offset)
    return offsets


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0
