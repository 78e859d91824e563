"""One look for all figures: sizes, fonts and colours of a two-column paper."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["ALARM", "GREY", "INK", "SEVERAL", "WIDTH", "frame", "paper", "save"]

# Inches: both columns of a CVPR page.
WIDTH = 6.9
INK = "#1f4e79"
ALARM = "#c0392b"
GREY = "#8a8f94"
# Okabe and Ito's colours, told apart with any colour vision.
SEVERAL = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

# Matplotlib types the keys as literals, which a plain dict loses.
_SETTINGS: Any = {
    "font.family": "serif",
    "font.serif": ["STIXGeneral"],  # comes with Matplotlib, so every machine draws the same
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.1,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "savefig.dpi": 200,
    "svg.hashsalt": "ppool",  # the same figure is the same file
}


@contextmanager
def paper() -> Iterator[None]:
    """Draw and save inside this, or the look is Matplotlib's."""
    with mpl.rc_context(_SETTINGS):
        yield


def frame(axes: Axes) -> None:
    """An image panel: no ticks, a thin frame on all sides."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(0.4)


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` and ``name.svg`` into ``folder``, made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, bbox_inches="tight", metadata=metadata)
    return paths
