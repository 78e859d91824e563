"""What poolings do inside a trained network: what they see, whether alpha matters, what they cost.

``python -m research mechanism`` measures it on checkpoints, so that a table of scores has a why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from ppool import PPool2d, ppool2d, replace
from ppool.feeding import Normalisation
from ppool.models import Checkpoint, original_pooling
from ppool.module import evaluating
from ppool.provenance import provenance
from ppool.training.atomic import write_whole
from ppool.training.dataset import Sample, SegmentationDataset
from ppool.training.evaluate import evaluate, fed
from ppool.training.loss import divisor, total_loss
from ppool.window import Window

__all__ = ["SHIFTS", "Stage", "measure", "mechanism"]

SHIFTS = (1, 2, 3, 5, 7)
"""By how many pixels a photo is moved, down and to the right."""

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Stage:
    """One pooling of a network on a set of photographs; all but the first two are None elsewhere.

    Attributes:
        zeros: Share of the windows' elements that weigh nothing for any alpha > 0: those that are
            not above 0, after Eq. 2's shift where the pooling is signed.
        silent: Share of windows with no other element.
        position: Where the result stands between the window's average, 0, and its maximum, 1; mean
            over the windows in which they differ.
        alpha: Its quantiles 5, 25, 50, 75 and 95 % over channels and positions, P-pooling only.
        doubling: By how much of the way from average to maximum the result moves if alpha doubles;
            mean over the same windows.
        bias_gradient: Median over channels of the size of the loss's gradient in the branch's
            bias; mean over photographs.
        region_gradient: The same for the branch's convolution.
        as_max: Mean IoU gained if this pooling alone becomes max pooling, nothing trained.
    """

    zeros: float
    silent: float
    position: float
    alpha: tuple[float, ...] | None = None
    doubling: float | None = None
    bias_gradient: float | None = None
    region_gradient: float | None = None
    as_max: float | None = None


def mechanism(checkpoint: Checkpoint, samples: Sequence[Sample]) -> dict[str, Any]:
    """Measure one trained network.

    Args:
        checkpoint: Of any pooling whose stages are layers.
        samples: Photographs with masks that it was not trained on.

    Returns:
        ``stages``, a :class:`Stage` by name; ``mean_iou``; ``all_as_max``, the mean IoU gained if
        every pooling becomes max pooling, nothing trained; ``consistency``, the share of pixels
        whose label stays when the photo moves by each of :data:`SHIFTS`.

    Raises:
        ValueError: if no photographs are given.
    """
    if not samples:
        raise ValueError("photographs: expected at least one, got none")
    model = checkpoint.build()
    network = _Network(model, checkpoint, samples)
    stages = {name: model.get_submodule(name) for name in original_pooling(checkpoint.network)}
    seen = {name: _Seen(window_of(layer)) for name, layer in stages.items()}
    with _watching(stages, seen), evaluating(model):
        for image in network.images():
            with torch.inference_mode():
                model(image)
    gradients = _branch_gradients(network, stages)
    score = network.mean_iou()
    return {
        "mean_iou": score,
        "stages": {
            name: asdict(
                Stage(
                    **seen[name].means(),
                    **gradients.get(name, {}),
                    as_max=network.gain_as_max([name], score),
                )
            )
            for name in stages
        },
        "all_as_max": network.gain_as_max(list(stages), score),
        "consistency": {shift: network.consistency(shift) for shift in SHIFTS},
    }


def measure(
    checkpoints: Sequence[Path], dataset: SegmentationDataset, images: int, output: Path
) -> None:
    """Measure networks on the same photographs; print a table and write everything as JSON.

    Raises:
        ValueError: if a network has other classes than the data set, or as :func:`mechanism`.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, images).round().astype(int))
    samples = [dataset[int(index)] for index in chosen]
    names = [label.name for label in dataset.classes]
    found: dict[str, Any] = {}
    console = Console()
    for path in checkpoints:
        checkpoint = Checkpoint.load(path)
        if [label.name for label in checkpoint.classes] != names:
            raise ValueError(f"{path}: expected a network of the data set's classes {names}")
        found[str(path)] = mechanism(checkpoint, samples)
        title = f"{checkpoint.network}, {checkpoint.pooling} ({path.parent.name})"
        console.print(_table(title, found[str(path)]))
    document = {"images": len(samples), "networks": found, **provenance()}
    write_whole(output, json.dumps(document, indent=1) + "\n")
    console.print(f"wrote {output}")


def _table(title: str, found: Mapping[str, Any]) -> Table:
    """One network's stages, for the terminal."""
    score, gain = (100 * found[key] for key in ("mean_iou", "all_as_max"))
    kept = ", ".join(f"{100 * share:.1f}" for share in found["consistency"].values())
    table = Table(
        "stage", "zeros", "position", "alpha", "doubled", "gradient", "as max",
        title=f"{title}: mean IoU {score:.1f}",
        caption=f"all as max {gain:+.1f}; labels kept at shifts of "
        f"{', '.join(map(str, SHIFTS))} pixels: {kept} %",
    )  # fmt: skip
    for stage, seen in found["stages"].items():
        learned = ["-"] * 3
        if seen["alpha"] is not None:
            learned = [
                f"{seen['alpha'][2]:.2f}",
                f"{seen['doubling']:+.3f}",
                f"{seen['bias_gradient']:.1e}",
            ]
        around = f"{seen['zeros']:.2f}", f"{seen['position']:.2f}"
        table.add_row(stage, *around, *learned, f"{100 * seen['as_max']:+.1f}")
    return table


def window_of(layer: nn.Module) -> Window:
    """The window of a pooling layer, ours or torch's.

    Raises:
        ValueError: if it has none, as where a strided convolution stands for a pooling.
    """
    found = getattr(layer, "window", None)
    if isinstance(found, Window):
        return found
    if isinstance(layer, replace.POOLS):
        return replace.window_of(layer)
    raise ValueError(f"pooling: expected a layer with a window, got {type(layer).__name__}")


class _Network:
    """A network with the photographs it is asked about."""

    def __init__(self, model: nn.Module, checkpoint: Checkpoint, samples: Sequence[Sample]) -> None:
        self.model = model
        self.samples = samples
        self.normalise = Normalisation(checkpoint.mean, checkpoint.std)
        self.policy = checkpoint.input
        self.classes = len(checkpoint.classes)

    def images(self) -> Iterator[Tensor]:
        """Normalised, float32 [1, 3, H, W]."""
        for sample in self.samples:
            yield self._tensor(fed(sample, self.policy).image)

    def _tensor(self, image: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(self.normalise(image[None]))

    def mean_iou(self) -> float:
        """Over all photographs, as a table has it."""
        found = evaluate(
            self.model, self.samples, num_classes=self.classes,
            normalise=self.normalise, policy=self.policy,
        )  # fmt: skip
        return round(found.everywhere.mean_iou, 4)

    def gain_as_max(self, names: Sequence[str], score: float) -> float:
        """What the score gains with max pooling in some stages: nothing where all have it."""
        layers = {name: self.model.get_submodule(name) for name in names}
        own = {name: pool for name, pool in layers.items() if not isinstance(pool, nn.MaxPool2d)}
        if not own:
            return 0.0
        for name, layer in own.items():
            w = window_of(layer)
            most = nn.MaxPool2d(w.kernel, w.stride, w.padding, w.dilation, ceil_mode=w.ceil_mode)
            self._put(name, most)
        try:
            return round(self.mean_iou() - score, 4)
        finally:
            for name, layer in own.items():
                self._put(name, layer)

    def _put(self, name: str, layer: nn.Module) -> None:
        parent, _, attribute = name.rpartition(".")
        setattr(self.model.get_submodule(parent), attribute, layer)

    def loss(self, sample: Sample) -> Tensor:
        """Mean cross-entropy of a photograph."""
        photo = fed(sample, self.policy)
        height, width = sample.mask.shape
        logits = self.model(self._tensor(photo.image))
        logits = F.interpolate(logits, photo.image.shape[:2], mode="bilinear", align_corners=False)
        masks = torch.from_numpy(sample.mask[None].astype(np.int64))
        return total_loss(logits[..., :height, :width], masks, "mean", None) / divisor(
            masks, "mean", None
        )

    def consistency(self, shift: int) -> float:
        """Share of the pixels that two crops, ``shift`` apart, share and call the same."""
        same = total = 0
        with evaluating(self.model), torch.inference_mode():
            for sample in self.samples:
                step = checked_size(sample.image, self.policy.multiple, shift)
                first, second = (
                    self._labels(sample.image[s : s + step[0], s : s + step[1]]) for s in (0, shift)
                )
                agree = first[shift:, shift:] == second[: step[0] - shift, : step[1] - shift]
                same += int(agree.sum())
                total += agree.size
        return round(same / total, 4)

    def _labels(self, image: NDArray[np.uint8]) -> NDArray[np.int64]:
        x = self._tensor(np.ascontiguousarray(image))
        logits = F.interpolate(self.model(x), x.shape[-2:], mode="bilinear", align_corners=False)
        labels: NDArray[np.int64] = logits.argmax(1)[0].numpy()
        return labels


def checked_size(image: NDArray[np.uint8], multiple: int, shift: int) -> tuple[int, int]:
    """The largest crop of whole multiples that fits twice, ``shift`` apart.

    Raises:
        ValueError: if the image has none.
    """
    height, width = ((side - shift) // multiple * multiple for side in image.shape[:2])
    if not height or not width:
        least = multiple + shift
        raise ValueError(f"photograph: expected {least} pixels a side, got {image.shape[:2]}")
    return height, width


class _Seen:
    """Sums over the windows of one stage."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.sums: dict[str, float] = dict.fromkeys(
            ("zeros", "silent", "position", "doubling"), 0.0
        )
        self.windows = self.varied = 0
        self.alphas: list[Tensor] = []

    def add(self, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        """One image's input [1, C, H, W] and result."""
        given, x, y = x, x.float(), y.float()
        if isinstance(layer, PPool2d):
            # With the offset that the unit adds before it pools, which is what alpha weighs.
            x, y = layer.raised(x), layer.raised(y)
        signed = bool(getattr(layer, "signed", False))
        offset = x.amin((2, 3), keepdim=True).clamp_max(0) if signed else torch.zeros(())
        heard = (x - offset).clamp_min(0)
        # A pooling that knows no sign takes negative values as they are.
        taken = heard if hasattr(layer, "signed") else x
        w = self.window
        largest = offset + F.max_pool2d(
            taken, w.kernel, w.stride, w.padding, w.dilation, w.ceil_mode
        )
        mean = _average(taken, w) + offset
        share = _average((heard == 0).float(), w)
        self.sums["zeros"] += float(share.sum())
        self.sums["silent"] += float((share == 1).sum())
        self.windows += share.numel()
        way = largest - mean
        varied = way > 1e-6 * largest.abs().clamp_min(1e-6)
        self.varied += int(varied.sum())
        self.sums["position"] += float(((y - mean) / way)[varied].sum())
        if isinstance(layer, PPool2d):
            alpha = layer.alpha(given).float()
            self.alphas.append(alpha.flatten()[:: max(1, alpha.numel() // 20_000)])
            doubled = ppool2d(
                x, 2 * alpha, w.kernel, w.stride, w.padding, w.dilation, w.ceil_mode, signed=signed
            )
            self.sums["doubling"] += float(((doubled - y) / way)[varied].sum())

    def means(self) -> dict[str, Any]:
        """As :class:`Stage` names them."""
        varied, windows = max(self.varied, 1), max(self.windows, 1)
        found: dict[str, Any] = {
            "zeros": round(self.sums["zeros"] / windows, 4),
            "silent": round(self.sums["silent"] / windows, 4),
            "position": round(self.sums["position"] / varied, 4),
        }
        if self.alphas:
            alphas = torch.cat(self.alphas)
            levels = torch.quantile(alphas, torch.tensor(_QUANTILES)).tolist()
            found["alpha"] = tuple(round(level, 3) for level in levels)
            found["doubling"] = round(self.sums["doubling"] / varied, 4)
        return found


def _average(values: Tensor, w: Window) -> Tensor:
    """Mean over the elements of each window that are in the image.

    Raises:
        ValueError: if the window is dilated, which torch averages not.
    """
    if w.dilation != (1, 1):
        raise ValueError(f"pooling: expected no dilation, got {w.dilation}")
    return F.avg_pool2d(values, w.kernel, w.stride, w.padding, w.ceil_mode, False)


@contextmanager
def _watching(stages: Mapping[str, nn.Module], seen: Mapping[str, _Seen]) -> Iterator[None]:
    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda layer, given, y: seen[name].add(layer, given[0], y)

    handles = [layer.register_forward_hook(watch(name)) for name, layer in stages.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _branch_gradients(
    network: _Network, stages: Mapping[str, nn.Module]
) -> dict[str, dict[str, Any]]:
    """Median size, by stage, of the gradients that reach its branch."""
    pools = {name: layer for name, layer in stages.items() if isinstance(layer, PPool2d)}
    if not pools:
        return {}
    sizes: dict[str, list[tuple[float, float]]] = {name: [] for name in pools}
    with evaluating(network.model):
        for sample in network.samples:
            network.model.zero_grad(set_to_none=True)
            network.loss(sample).backward()  # type: ignore[no-untyped-call]
            for name, pool in pools.items():
                pair = (pool.point_bias.grad, pool.region.weight.grad)
                bias, region = (0.0 if g is None else float(g.abs().median()) for g in pair)
                sizes[name].append((bias, region))
    network.model.zero_grad(set_to_none=True)
    return {
        name: dict(
            zip(("bias_gradient", "region_gradient"), np.mean(pairs, axis=0).tolist(), strict=True)
        )
        for name, pairs in sizes.items()
    }
