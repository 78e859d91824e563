"""Figure 6: the alpha maps of a network on a photo, and every channel's mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from ppool import PPool2d
from ppool.feeding import Feed, Normalisation, feed
from ppool.models import Checkpoint
from ppool.service.codecs.images import decode_file
from ppool.training.evaluate import predict
from research.figures.style import GREY, INK, WIDTH, frame, paper, save

__all__ = ["StageAlpha", "alpha_maps", "draw_alpha_maps"]

# Which channels are shown, as ranks among a stage's channel means.
_RANKS = (0.0, 1 / 3, 2 / 3, 1.0)


@dataclass(frozen=True)
class StageAlpha:
    """What one stage's side branch predicted.

    Attributes:
        stage: The path of the pooling in its network.
        alpha: float32 [C, h, w].
        bias: The exponent of an empty map, averaged over the channels.
    """

    stage: str
    alpha: NDArray[np.float32]
    bias: float

    @property
    def channel_means(self) -> NDArray[np.float32]:
        """Mean over the plane, [C]."""
        means: NDArray[np.float32] = self.alpha.mean((1, 2))
        return means


def alpha_maps(model: nn.Module, photo: Feed, normalise: Normalisation) -> list[StageAlpha]:
    """Run ``model`` on a photo and keep each P-pooling stage's alpha map."""
    seen: dict[str, tuple[PPool2d, Tensor]] = {}

    def keep(stage: str, pool: PPool2d) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[stage] = (pool, pool.alpha(inputs[0])[0])

        return pool.register_forward_pre_hook(hook)

    pools = [(path, m) for path, m in model.named_modules() if isinstance(m, PPool2d)]
    handles = [keep(path, pool) for path, pool in pools]
    try:
        predict(model, photo, normalise)
    finally:
        for handle in handles:
            handle.remove()
    return [
        StageAlpha(stage, alpha.numpy(), float(pool.point_bias.detach().mean()))
        for stage, (pool, alpha) in seen.items()
    ]


def draw_alpha_maps(checkpoint: Path, photo: Path, folder: Path) -> list[Path]:
    """Draw Figure 6 for a checkpoint of ``ppool train`` and a photo; return its files.

    A row a stage: the mean over channels, four channels from the lowest mean to the highest, and
    the means of all channels in ascending order, with the average bias of the branch dashed: where
    alpha stands on an empty map. Brighter is a larger alpha, nearer to max pooling; each map has
    its own scale, named above it.

    Raises:
        ValueError: if the network has no P-pooling or the photo cannot be read.
        FileNotFoundError: if a file is missing.
    """
    trained = Checkpoint.load(checkpoint)
    found = decode_file(photo, trained.input)
    fed = feed(found.image, trained.input, (found.height, found.width))
    stages = alpha_maps(trained.build(), fed, Normalisation(trained.mean, trained.std))
    if not stages:
        raise ValueError(
            f"{checkpoint}: expected a network with P-pooling, got {trained.pooling!r}"
        )
    with paper():
        return save(_figure(found.image, stages), folder, "figure-6")


def _figure(image: NDArray[np.uint8], stages: Sequence[StageAlpha]) -> Figure:
    aspect = image.shape[0] / image.shape[1]
    ratios = [1.3, 0.12, *[1.0] * (len(_RANKS) + 1), 0.16, 1.3]
    height = len(stages) * (0.9 * WIDTH / sum(ratios) * aspect + 0.3)
    figure = Figure(figsize=(WIDTH, height))
    grid = figure.add_gridspec(
        len(stages), len(ratios), width_ratios=ratios, wspace=0.08, hspace=0.3 / aspect,
        left=0, right=1, top=1, bottom=0,
    )  # fmt: skip
    photo = figure.add_subplot(grid[:, 0])
    photo.imshow(image)
    photo.set_title("input")
    frame(photo)
    for row, entry in enumerate(stages):
        order = np.argsort(entry.channel_means)
        shown = [order[round(rank * (len(order) - 1))] for rank in _RANKS]
        maps = {"mean": entry.alpha.mean(0)} | {f"ch. {c}": entry.alpha[c] for c in shown}
        for column, (title, values) in enumerate(maps.items(), 2):
            panel = figure.add_subplot(grid[row, column])
            panel.imshow(values, cmap="gray", interpolation="nearest")
            frame(panel)
            panel.set_title(f"{title}: {values.min():.1f} to {values.max():.1f}", fontsize=6, pad=2)
            if column == 2:
                panel.set_ylabel(entry.stage)
        plot = figure.add_subplot(grid[row, -1])
        plot.plot(entry.channel_means[order], ".", markersize=2.5, color=INK)
        plot.axhline(entry.bias, color=GREY, linewidth=0.6, linestyle="--")
        plot.margins(y=0.1)
        plot.set_title(f"mean of each of {len(order)} channels", fontsize=6, pad=2)
        plot.tick_params(labelsize=6, pad=1.5)
    return figure
