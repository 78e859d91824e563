"""Figure 3: poolings of two numbers as surfaces, P-pooling's gradients, and where Lp breaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ppool import ppool2d
from research.figures.style import ALARM, GREY, SEVERAL, WIDTH, paper, save

__all__ = ["draw_surfaces", "lp_norm"]

Array = NDArray[np.float64]
Pool = Callable[[Tensor], Tensor]


def lp_norm(x: Tensor, p: Tensor | float) -> Tensor:
    """Lp pooling as the supplement's Eq. 1 has it, ``(sum_i x_i ** p) ** (1 / p)``, unguarded.

    Shape:
        [..., N] to [...].
    """
    return (x**p).sum(-1) ** (1 / p)


def _p_pooling(x: Tensor, alpha: Tensor) -> Tensor:
    """P-pooling of windows [M, N] with one exponent each, [M]."""
    windows = x[None, None]  # [1, 1, M, N]
    return ppool2d(windows, alpha[None, None, :, None], (1, x.shape[1])).view(-1)


def _p(alpha: float) -> Pool:
    return lambda x: _p_pooling(x, torch.full((len(x),), alpha, dtype=x.dtype))


def _lp_norm(p: float) -> Pool:
    return lambda x: lp_norm(x, p)


def _gated(gate: float) -> Pool:
    return lambda x: gate * x.amax(-1) + (1 - gate) * x.mean(-1)


_SURFACES: tuple[dict[str, Pool], ...] = (
    {
        "average": lambda x: x.mean(-1),
        "max": lambda x: x.amax(-1),
        "gated, $g = 0.3$": _gated(0.3),
        "gated, $g = 0.7$": _gated(0.7),
    },
    {f"$L_p$, $p = {p:g}$": _lp_norm(p) for p in (1.5, 2.0, 3.0, 10.0)},
    {rf"$\mathcal{{P}}$, $\alpha = {a:g}$": _p(a) for a in (0.5, 2.0, 5.0, 20.0)},
)
_ALPHAS = (0.5, 1.0, 2.0, 5.0, 20.0)


def _plane(count: int) -> tuple[Array, Array, Tensor]:
    """Coordinates over (0, 1] x (0, 1] and the same as windows of two, [count * count, 2]."""
    axis = np.linspace(1 / count, 1, count)
    x1, x2 = np.meshgrid(axis, axis, indexing="ij")
    return x1, x2, torch.from_numpy(np.stack([x1.ravel(), x2.ravel()], 1))


def draw_surfaces(folder: Path) -> list[Path]:
    """Draw Figure 3 as three pictures and return their files.

    ``figure-3`` has the surfaces, ``figure-3-gradients`` P-pooling's gradients (Eq. 3 and 4),
    ``figure-3-lp`` what the supplement says against Lp pooling.
    """
    with paper():
        return [*_values(folder), *_gradients(folder), *_lp(folder)]


def _values(folder: Path) -> list[Path]:
    x1, x2, windows = _plane(24)
    figure = Figure(figsize=(WIDTH, 5.2))
    for row, poolings in enumerate(_SURFACES):
        for column, (name, pool) in enumerate(poolings.items()):
            # A 3-D axes has its own type, which the stubs of `add_subplot` do not tell.
            axes: Any = figure.add_subplot(3, 4, 4 * row + column + 1, projection="3d")
            y = pool(windows).numpy().reshape(x1.shape)
            above = (y > np.maximum(x1, x2) * 1.01)[..., None]
            colours = np.where(above, to_rgb(ALARM), to_rgb(SEVERAL[5]))
            axes.plot_surface(
                x1, x2, y, facecolors=colours, shade=False, linewidth=0.25, edgecolor="white"
            )
            axes.set_title(name, y=0.98)
            axes.set(xlim=(0, 1), ylim=(0, 1), zlim=(0, 1.6))
            axes.set(xticks=(0, 1), yticks=(0, 1), zticks=(0, 1))
            axes.tick_params(pad=-4)
            axes.set_xlabel("$x_1$", labelpad=-12)
            axes.set_ylabel("$x_2$", labelpad=-12)
            axes.view_init(elev=22, azim=-125)
    figure.subplots_adjust(0, 0.03, 0.98, 0.97, wspace=0.02, hspace=0.08)
    figure.text(
        0.5, 0.0, "red: the result exceeds both inputs by more than 1 %", color=ALARM, ha="center"
    )
    return save(figure, folder, "figure-3")


def _gradients(folder: Path) -> list[Path]:
    _, _, windows = _plane(120)
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    grid = figure.subplots(2, len(_ALPHAS), sharex=True, sharey=True)
    for column, alpha in enumerate(_ALPHAS):
        x = windows.clone().requires_grad_()
        exponent = torch.full((len(x),), alpha, dtype=x.dtype, requires_grad=True)
        dx, dalpha = torch.autograd.grad(_p_pooling(x, exponent).sum(), (x, exponent))
        panels = ((dx[:, 0], 1.25, "RdBu_r"), (dalpha / dalpha.max(), 1.0, "cividis"))
        for axes, (values, limit, colours) in zip(grid[:, column], panels, strict=True):
            picture = axes.imshow(
                values.numpy().reshape(120, 120).T,
                origin="lower",
                extent=(0, 1, 0, 1),
                cmap=colours,
                vmin=-limit if colours == "RdBu_r" else 0,
                vmax=limit,
            )
            axes.set(xticks=(0, 1), yticks=(0, 1))
            if column == len(_ALPHAS) - 1:
                figure.colorbar(picture, ax=list(grid[grid[:, column] == axes][0]), shrink=0.85)
        grid[0, column].set_title(rf"$\alpha = {alpha:g}$")
        grid[1, column].set_title(rf"largest {float(dalpha.max()):.2g}", fontsize=7)
        grid[1, column].set_xlabel("$x_1$", labelpad=-6)
    grid[0, 0].set_ylabel(r"$\partial y / \partial x_1$" + "\n$x_2$", labelpad=-2)
    grid[1, 0].set_ylabel(r"$\partial y / \partial \alpha$, scaled" + "\n$x_2$", labelpad=-2)
    return save(figure, folder, "figure-3-gradients")


def _lp(folder: Path) -> list[Path]:
    figure = Figure(figsize=(WIDTH, 1.9), layout="constrained")
    above, zero, order, finite = figure.subplots(1, 4)
    _above_the_maximum(above)
    _near_zero(zero)
    _in_p(order)
    _share_of_finite(finite)
    return save(figure, folder, "figure-3-lp")


def _above_the_maximum(axes: Axes) -> None:
    ratio = torch.linspace(0, 1, 101, dtype=torch.float64)
    windows = torch.stack([torch.ones_like(ratio), ratio, ratio, ratio], 1)
    for p, colour in zip((1.0, 2.0, 3.0, 10.0), SEVERAL, strict=False):
        axes.plot(ratio, lp_norm(windows, p), color=colour, label=f"$L_p$, $p = {p:g}$")
    axes.plot(ratio, _p(2.0)(windows), color="black", label=r"$\mathcal{P}$, $\alpha = 2$")
    axes.axhline(1, color=GREY, linewidth=0.5, linestyle="--")
    axes.set_title("(a) above the largest input")
    axes.set(xlabel="other three inputs / largest", ylabel="result / largest", yticks=(1, 2, 3, 4))
    axes.legend(handlelength=1.0, labelspacing=0.2)


def _near_zero(axes: Axes) -> None:
    """The gradient of windows that shrink to zero: Lp's ends in NaN, P-pooling's in 1 / N."""
    scale = torch.cat([torch.zeros(1), torch.logspace(-18, 0, 37)])
    for name, pool, colour in (
        ("$L_p$, $p = 3$", lambda x: lp_norm(x, 3.0), SEVERAL[2]),
        (r"$\mathcal{P}$, $\alpha = 2$", _p(2.0), "black"),
    ):
        x = scale[:, None].repeat(1, 4).requires_grad_()
        slope = torch.autograd.grad(pool(x).sum(), x)[0][:, 0]
        good = slope.isfinite()
        shown = scale.clamp(min=1e-21)
        axes.plot(shown[good], slope[good], ".-", markersize=3, color=colour, label=name)
        axes.plot(shown[~good], torch.zeros(int((~good).sum())), "x", color=colour, markersize=4)
    axes.set_xscale("log")
    axes.set_title("(b) windows near zero")
    axes.set(xlabel="all four inputs (leftmost: 0)", ylabel=r"$\partial y / \partial x_1$")
    axes.set_xticks([1e-21, 1e-14, 1e-7, 1], ["0", "$10^{-14}$", "$10^{-7}$", "1"])
    axes.text(1e-20, 0.03, "NaN", fontsize=7, color=SEVERAL[2])
    axes.set_ylim(-0.05, 0.8)
    axes.legend(handlelength=1.0, loc="upper right")


def _in_p(axes: Axes) -> None:
    """How steep the result is in its own order: learning p meets a pole at 0."""
    x = torch.tensor([1.0, 0.8, 0.5, 0.2], dtype=torch.float64)
    order = torch.logspace(-1, 1.5, 60, dtype=torch.float64, requires_grad=True)
    norms = torch.stack([lp_norm(x, p) for p in order])
    slope = torch.autograd.grad(norms.sum(), order)[0].abs()
    exponent = order.detach().clone().requires_grad_()
    pooled = _p_pooling(x.repeat(len(exponent), 1), exponent)
    own = torch.autograd.grad(pooled.sum(), exponent)[0]
    axes.loglog(order.detach(), slope, color=SEVERAL[2], label=r"$|\partial L_p / \partial p|$")
    axes.loglog(order.detach(), own, color="black", label=r"$\partial \mathcal{P}/\partial\alpha$")
    axes.set_title("(c) learning the order")
    axes.set(xlabel=r"$p$ or $\alpha$", ylabel="slope", yticks=(1e-4, 1, 1e4, 1e8))
    axes.legend(handlelength=1.0)


def _share_of_finite(axes: Axes) -> None:
    """Float32 gradients of windows at activations' scales, as a share that is finite."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.logspace(-2, 2, 4000)[:, None]
    windows = scale * torch.rand(4000, 4, generator=generator)
    orders = torch.linspace(1, 60, 60)
    for name, pool, colour in (("$L_p$", lp_norm, SEVERAL[2]), (r"$\mathcal{P}$", None, "black")):
        shares = []
        for order in orders.tolist():
            x = windows.clone().requires_grad_()
            y = _p(order)(x) if pool is None else pool(x, order)
            slope = torch.autograd.grad(y.sum(), x)[0]
            shares.append(100 * float((slope.isfinite().all(1) & y.isfinite()).float().mean()))
        axes.plot(orders, shares, color=colour, label=name)
    axes.set_title("(d) finite in float32, %")
    axes.set(xlabel=r"$p$ or $\alpha$", ylim=(0, 105), yticks=(0, 50, 100))
    axes.legend(handlelength=1.0, loc="lower left")
