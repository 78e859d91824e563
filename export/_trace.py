"""A PyTorch network as an ONNX graph from uint8 images to labels, still without bodies."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import fields, is_dataclass, replace
from typing import Any

import onnx
import torch
from onnxscript.values import Opset
from torch import Tensor, nn
from torch.nn import functional as F

from ppool.feeding import Normalisation
from ppool.metadata import Stage, label_type
from ppool.module import PPool2d
from ppool.onnx_ops import (
    DOMAIN,
    ONNX_OPSET,
    OPSET,
    PLUGIN_ATTRIBUTES,
    RESIZE_ATTRIBUTES,
    register_schemas,
    resize_argmax_for,
)

__all__ = ["Pipeline", "scores_of", "trace"]


class _AlphaMaps:
    """The alpha maps of the latest forward pass, in the order of computation."""

    def __init__(self) -> None:
        self.named: list[tuple[str, PPool2d, Tensor]] = []


class _Unit(nn.Module):
    """Stands in for a PPool2d: one operator, and beside it the alpha map by standard operations."""

    def __init__(self, pool: PPool2d, stage: str, maps: _AlphaMaps) -> None:
        super().__init__()
        self.pool = pool
        self.stage = stage
        self._maps = maps

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(x)
        x = self.pool.raised(x)
        if self.pool.window.ceil_mode:
            # Enough for every overhanging window, whatever the size, so the graph need not compute
            # the size; what is too much is cropped.
            down, across = self.pool.window.stride
            x = F.pad(x, (0, across - 1, 0, down - 1))
        alpha = _alpha_map(self.pool, x)
        if self.pool.window.ceil_mode:
            alpha = torch.ops.ppool.crop_like(alpha, y)
        self._maps.named.append((self.stage, self.pool, alpha))
        return y


def _alpha_map(pool: PPool2d, x: Tensor) -> Tensor:
    """The pool's alpha map (Eq. 5) as a convolution, without what ``ceil_mode`` would add."""
    w = pool.window
    # The convolution pads alike on all sides; odd sizes need more at the end only.
    ends = replace(w, ceil_mode=False).end_padding(x.shape[-2], x.shape[-1])
    bottom, right = (max(end - begin, 0) for end, begin in zip(ends, w.padding, strict=True))
    if bottom or right:
        x = F.pad(x, (0, right, 0, bottom))
    h = F.conv2d(
        x, pool.region.weight * pool.input_scale, None, w.stride, w.padding, w.dilation,
        groups=pool.channels,
    )  # fmt: skip
    h = F.prelu(h, pool.activation.weight)
    h = h * pool.point_weight[:, None, None] + pool.point_bias[:, None, None]
    return h.clamp(pool.alpha_min, pool.alpha_max)


class Pipeline(nn.Module):
    """What the exported file computes: image to labels and alpha maps.

    Shape:
        ``image`` is uint8 [N, H, W, 3]; the results are the mask, [N, H, W] of uint8, or of uint16
        for more than 256 classes, and for each P-pooling layer, in the order of computation, its
        alpha map, float32 [N, C, h, w].
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        network: nn.Module,
        normalisation: Normalisation,
        threshold: float = 0.0,
        behind: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.threshold = threshold
        self.behind = behind
        self._maps = _AlphaMaps()
        self.network = deepcopy(network).cpu().float()
        self._replace_pools()
        # In units of the byte image, so that it is subtracted from and divided once.
        for name, row in zip(("mean", "deviation"), normalisation.of_bytes, strict=True):
            constant = torch.tensor(row, dtype=torch.float32)[:, None, None]
            self.register_buffer(name, constant, persistent=False)
        self.eval().requires_grad_(False)

    def _replace_pools(self) -> None:
        found = [
            (path, layer)
            for path, layer in self.named_modules(remove_duplicate=False)
            if isinstance(layer, PPool2d)
        ]
        last_names = [path.rpartition(".")[2] for path, _ in found]
        for (path, layer), last in zip(found, last_names, strict=True):
            unique = last_names.count(last) == 1 and not last.isdigit()
            stage = last if unique else path.removeprefix("network.")
            parent, _, attribute = path.rpartition(".")
            setattr(self.get_submodule(parent), attribute, _Unit(layer, stage, self._maps))

    def scores(self, image: Tensor) -> Tensor:
        """What the network answers, float32 [N, K, h, w]."""
        x = image.permute(0, 3, 1, 2).float()  # [N, 3, H, W]
        found = scores_of(self.network((x - self.mean) / self.deviation))
        return found if self.behind is None else self.behind(found, x)

    def logits(self, image: Tensor) -> Tensor:
        """The same with a channel of zeros for the background, where it has one channel only."""
        y = self.scores(image)
        if y.shape[1] > 1:
            return y
        above = y - self.threshold
        return torch.cat((torch.zeros_like(above), above), 1)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The mask, then the alpha maps."""
        self._maps.named.clear()
        labels = torch.ops.ppool.resize_argmax(self.logits(image), image)
        return labels, *(alpha for _, _, alpha in self._maps.named)

    def stages(self, image: Tensor) -> tuple[Stage, ...]:
        """Run on ``image`` and describe each alpha map.

        Raises:
            ValueError: if a P-pooling layer is called more than once.
        """
        self.forward(image)
        names = [name for name, _, _ in self._maps.named]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"network: expected each P-pooling layer to be called once, got "
                    f"{names.count(name)} calls of {name!r}; give each place its own layer"
                )
        return tuple(
            Stage(
                name=name,
                output=f"alpha/{name}",
                channels=pool.channels,
                stride=round(image.shape[1] / alpha.shape[2]),
                alpha_min=pool.alpha_min,
                alpha_max=pool.alpha_max,
            )
            for name, pool, alpha in self._maps.named
        )


def scores_of(answer: Any) -> Tensor:
    """The scores, [N, K, h, w], among what a network answers.

    torchvision gives a dictionary with ``out``, Hugging Face an object with ``logits``, deep
    supervision several, the first of which is the last layer's.

    Raises:
        ValueError: if there are none.
    """
    found = answer
    if isinstance(found, Mapping):
        named = (found[key] for key in ("out", "logits") if key in found)
        found = next(named, next(iter(found.values()), None))
    elif not isinstance(found, Tensor) and hasattr(found, "logits"):
        found = found.logits
    elif isinstance(found, (tuple, list)):
        found = found[0] if found else None
    elif is_dataclass(found) and fields(found):
        found = getattr(found, fields(found)[0].name)
    if isinstance(found, Tensor) and found.dim() == 3:
        found = found.unsqueeze(1)
    if not isinstance(found, Tensor) or found.dim() != 4:
        got = list(found.shape) if isinstance(found, Tensor) else type(answer).__name__
        raise ValueError(f"network: expected logits [N, K, h, w], got {got!r}")
    return found


@torch.library.custom_op("ppool::crop_like", mutates_args=())
def _crop_like(x: Tensor, like: Tensor) -> Tensor:
    """The top left of ``x``, as high and wide as ``like``."""
    return x[..., : like.shape[-2], : like.shape[-1]].clone()


@_crop_like.register_fake
def _(x: Tensor, like: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:2], *like.shape[2:]))


@torch.library.custom_op("ppool::resize_argmax", mutates_args=())
def _resize_argmax(logits: Tensor, image: Tensor) -> Tensor:
    """Labels, [N, H, W], of logits [N, K, h, w] for an image [N, H, W, 3]."""
    size = image.shape[1:3]
    return F.interpolate(logits, size, mode="bilinear").argmax(1).to(_label(logits))


@_resize_argmax.register_fake
def _(logits: Tensor, image: Tensor) -> Tensor:
    return logits.new_empty((logits.shape[0], *image.shape[1:3]), dtype=_label(logits))


def _label(logits: Tensor) -> torch.dtype:
    return torch.uint8 if label_type(logits.shape[1]) == "uint8" else torch.uint16


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For PyTorch's exporter: our operators as nodes of ``ai.ppool``, every attribute written."""
    register_schemas()
    ours, standard = Opset(DOMAIN, OPSET), Opset("", ONNX_OPSET)

    def window(
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        ceil_mode: bool,
        signed: bool,
    ) -> dict[str, Any]:
        return {
            "kernel_shape": list(kernel),
            "strides": list(stride),
            "pads": [*padding, *padding],
            "dilations": list(dilation),
            "ceil_mode": int(ceil_mode),
            "signed": int(signed),
            **PLUGIN_ATTRIBUTES,
        }

    def ppool2d(x: Any, alpha: Any, *arguments: Any) -> Any:
        return ours.PPool(x, alpha, **window(*arguments))

    def unit(x: Any, w_region: Any, slope: Any, w_point: Any, b_point: Any, *arguments: Any) -> Any:
        geometry, (input_scale, alpha_min, alpha_max) = arguments[:6], arguments[6:9]
        return ours.PPoolUnit(
            x,
            w_region,
            slope,
            w_point,
            b_point,
            **window(*geometry),
            input_scale=input_scale,
            alpha_min=alpha_min,
            alpha_max=alpha_max,
            num_outputs=1,
        )

    def crop_like(x: Any, like: Any) -> Any:
        first, axes = (standard.Constant(value_ints=values) for values in ([0, 0], [2, 3]))
        return standard.Slice(x, first, standard.Shape(like, start=2), axes)

    def resize_argmax(logits: Any, image: Any) -> Any:
        size = standard.Shape(image, start=1, end=3)
        operator = getattr(ours, resize_argmax_for(logits.shape[1]))
        return operator(logits, size, **RESIZE_ATTRIBUTES)

    return {
        torch.ops.ppool.ppool2d.default: ppool2d,
        torch.ops.ppool.unit.default: unit,
        torch.ops.ppool.crop_like.default: crop_like,
        torch.ops.ppool.resize_argmax.default: resize_argmax,
    }


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep PyTorch's notes to its own developers off the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


def trace(
    pipeline: Pipeline, image: Tensor, outputs: Sequence[str], multiple: int
) -> onnx.ModelProto:
    """The pipeline as a graph with free batch, height and width.

    Args:
        pipeline: What to export.
        image: An example, uint8 [N, H, W, 3], with N, H and W above 1.
        outputs: Names of the graph's outputs.
        multiple: What heights and widths are multiples of. Networks whose branches only meet at
            such sizes cannot be traced without knowing it.
    """
    batch, height, width = (torch.export.Dim(name) for name in ("batch", "height", "width"))
    with _quiet_exporter():
        program = torch.onnx.export(
            pipeline,
            (image,),
            dynamo=True,
            verbose=False,
            opset_version=ONNX_OPSET,
            input_names=["image"],
            output_names=list(outputs),
            dynamic_shapes=({0: batch, 1: multiple * height, 2: multiple * width},),
            custom_translation_table=_translations(),
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model: onnx.ModelProto = program.model_proto
    return model
