"""Style of the figures: fonts, colour-blind-safe colours, sizes, file formats."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

from sagebench.files import write_atomic

WIDTH_IN = 5.2
PNG_DPI = 200

INK, SOFT, FAINT, STRIP = "#1d232b", "#58626e", "#d9dde2", "#f4f1ea"
ALARM = "#b3261e"

# Okabe and Ito's palette, the two most different first; yellow is too pale for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#56B4E9", "#E69F00", "#000000", "#7f7f7f")
MARKERS = ("o", "s", "^", "D", "v", "P", "h", "*")
FIRST_SERIES = ("blocks", "reference", "trimmed")
"""Engines keep their colour from figure to figure and from study to study."""

RC: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.parse_math": False,  # names that users write may hold a $
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "sagebench",  # the same data gives the same file
    "path.simplify": False,
}


@contextmanager
def look() -> Iterator[None]:
    """Everything drawn and saved inside has the look; nothing outside changes."""
    with mpl.rc_context({**sns.axes_style("ticks"), **RC}):
        yield


def looks(series: Iterable[str]) -> dict[str, dict[str, str]]:
    """Series -> colour and marker, so that colour is never the only difference; an engine's own
    name keeps its own."""
    names = list(dict.fromkeys(series))
    places = [*FIRST_SERIES, *names] if set(names) & set(FIRST_SERIES) else names
    return {
        name: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        for i, name in enumerate(dict.fromkeys(places))
        if name in names
    }


def shades(count: int) -> list[str]:
    """`count` colours of one ordered scale, light to dark, all legible on white."""
    return sns.color_palette("viridis_r", count + 1).as_hex()[1:]


def save(figure: Figure, folder: str | Path, name: str) -> None:
    """Write `folder/name.svg` and `.png`: atomically, the same bytes for the same data."""
    for kind, options in (
        ("svg", {"metadata": {"Date": None, "Creator": None}}),
        ("png", {"metadata": {"Software": None}, "dpi": PNG_DPI}),
    ):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, **options)
        write_atomic(Path(folder) / f"{name}.{kind}", buffer.getvalue())
