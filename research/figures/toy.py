"""Figure 2: what each pooling leaves of single points and thin lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ppool import ppool2d
from ppool.models.poolings import DPPool2d, LpPool2d
from ppool.window import Window
from research.figures.style import WIDTH, frame, paper, save

__all__ = ["draw_toy"]

Grey = NDArray[np.float32]
Point = tuple[float, float]
Pool = Callable[[Tensor, Window], Tensor]


def _ppool(alpha: float) -> Pool:
    def pool(x: Tensor, window: Window) -> Tensor:
        size = window.output_size(x.shape[-2], x.shape[-1])
        exponents = torch.full((*x.shape[:2], *size), alpha)
        return ppool2d(x, exponents, window.kernel, window.stride)

    return pool


def _dpp(x: Tensor, window: Window) -> Tensor:
    pool = DPPool2d(1, window)
    for parameter in pool.parameters():
        parameter.data.zero_()  # the middle of its random start
    y: Tensor = pool(x)
    return y.detach()


_POOLINGS: dict[str, Pool] = {
    "max": lambda x, w: F.max_pool2d(x, w.kernel, w.stride),
    "average": lambda x, w: F.avg_pool2d(x, w.kernel, w.stride),
    "strided": lambda x, w: F.max_pool2d(x, 1, w.stride),
    "$L_p$, $p = 3$": lambda x, w: LpPool2d(w, signed=False)(x),
    "DPP": _dpp,
    r"$\mathcal{P}$, $\alpha = 2$": _ppool(2.0),
    r"$\mathcal{P}$, $\alpha = 20$": _ppool(20.0),
}


def _corners() -> Grey:
    """A grey square with one white and one dark corner, a bright line, a dark line in a bar."""
    image = np.full((12, 12), 0.15, np.float32)
    image[1:6, 1:6] = 0.55
    image[1, 1], image[5, 5] = 1.0, 0.15
    image[1:6, 8] = 0.85
    image[8:11, 1:11] = 0.8
    image[8:11, 6] = 0.3
    return image


def _street() -> Grey:
    """Poles and cables, dark before a bright sky and bright before a dark wall."""
    scale, size = 8, 96
    image = np.full((size * scale, size * scale), 0.85, np.float32)
    image[:, 48 * scale :] = 0.2
    image[80 * scale :] = 0.45

    def line(start: Point, end: Point, width: float, tone: float) -> None:
        first, last = ([round(c * scale) for c in point] for point in (start, end))
        cv2.line(image, first, last, tone, round(width * scale))

    for offset, tone in ((0, 0.15), (48, 0.95)):
        line((offset + 10, 20), (offset + 10, 80), 2.5, tone)
        line((offset + 36, 30), (offset + 36, 80), 1.5, tone)
        line((offset, 12), (offset + 48, 22), 1.0, tone)
        centre = (round((offset + 23) * scale), 62 * scale)
        cv2.circle(image, centre, 10 * scale, tone, scale)
        for spoke in range(6):
            x, y = 10 * np.cos(spoke * np.pi / 3), 10 * np.sin(spoke * np.pi / 3)
            line((offset + 23, 62), (offset + 23 + x, 62 + y), 0.8, tone)
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.float32)


def _pooled(image: Grey, pool: Pool, window: Window, times: int) -> Grey:
    x = torch.from_numpy(image)[None, None]
    for _ in range(times):
        x = pool(x, window)
    return np.asarray(x[0, 0], np.float32)


def draw_toy(folder: Path) -> list[Path]:
    """Draw Figure 2 and return its files.

    The upper row pools once with a 2x2 window and stride 1, as the paper does. The lower row pools
    a small scene three times with stride 2, as a network does, down to stride 8.
    """
    rows = (
        (_corners(), Window.of(2, 1), 1, "stride 1, once"),
        (_street(), Window.of(2), 3, "stride 2, three times"),
    )
    with paper():
        figure = Figure(figsize=(WIDTH, 1.72))
        grid = figure.subplots(2, len(_POOLINGS) + 1)
        figure.subplots_adjust(0, 0, 1, 1, wspace=0.06, hspace=0.06)
        for axes_row, (image, window, times, label) in zip(grid, rows, strict=True):
            panels = {"input": image} | {
                name: _pooled(image, pool, window, times) for name, pool in _POOLINGS.items()
            }
            for axes, (name, panel) in zip(axes_row, panels.items(), strict=True):
                axes.imshow(panel, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                frame(axes)
                if times == 1:
                    axes.set_title(name)
            axes_row[0].set_ylabel(label, fontsize=7)
        return save(figure, folder, "figure-2")
