"""One look for every figure: type, colours that colour-blind readers tell apart, sizes, files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

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

RC = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.parse_math": False,  # names that users write may hold a $
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.minor.bottom": False,
    "ytick.minor.left": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",  # looks the same wherever it is opened
    "svg.hashsalt": "sagebench",  # the same data gives the same file
    "path.simplify": False,
}


@contextmanager
def look() -> Iterator[None]:
    """Everything drawn and saved inside has the look; nothing outside changes."""
    with mpl.rc_context({**sns.axes_style("ticks"), **RC}):
        yield


def colours(series: Iterable[str]) -> dict[str, str]:
    """Series -> colour; an engine's own name keeps its own colour."""
    return dict(zip_cycled(_ordered(series), COLOURS))


def markers(series: Iterable[str]) -> dict[str, str]:
    """Series -> marker: colour is never the only difference."""
    return dict(zip_cycled(_ordered(series), MARKERS))


def shades(count: int) -> list[str]:
    """`count` colours of one ordered scale, light to dark, all legible on white."""
    return [mpl.colors.to_hex(c) for c in sns.color_palette("viridis_r", count + 1)[1:]]


def zip_cycled(names: Iterable[str | None], looks: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, looks[i % len(looks)]) for i, name in enumerate(names) if name is not None]


def _ordered(series: Iterable[str]) -> list[str | None]:
    """The engines' places first, None where an engine is not there, if any engine is named."""
    names = list(dict.fromkeys(series))
    if not any(name in FIRST_SERIES for name in names):
        return list(names)
    first = [name if name in names else None for name in FIRST_SERIES]
    return first + [name for name in names if name not in FIRST_SERIES]


def drawable(text: str) -> str:
    """`text` with `?` for every character that the figures' font cannot draw."""
    known = get_font(findfont("DejaVu Sans")).get_charmap()
    return "".join(c if ord(c) in known else "?" for c in text)


def save(figure: Figure, folder: str | Path, name: str) -> None:
    """Write `folder/name.svg` and `.png`: whole or not at all, the same bytes for the same data."""
    for kind, options in (
        ("svg", {"metadata": {"Date": None, "Creator": None}}),
        ("png", {"metadata": {"Software": None}, "dpi": PNG_DPI}),
    ):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, **options)
        write_atomic(Path(folder) / f"{name}.{kind}", buffer.getvalue())
