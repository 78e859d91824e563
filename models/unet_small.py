"""The small network that ships: a U-Net whose only path from the image is through its poolings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from ppool.models._layers import PretrainedNetwork, upsample
from ppool.models._pooling import Poolings
from ppool.window import Window

__all__ = ["UNetSmall"]

# Trained from scratch there is no max-pooled network to preserve, so alpha starts where it can
# still move: dy/dalpha falls as 1 / alpha ** 2. Batch norm keeps the branch's input near 1, so it
# needs no factor of 100.
FROM_SCRATCH = {"alpha_init": 2.0, "input_scale": 1.0}

HALVE = Window.of(2)


def _conv(
    inputs: int, outputs: int, kernel_size: int = 3, dilation: int = 1, *, relu: bool = True
) -> nn.Sequential:
    """Convolution, batch norm, ReLU; keeps height and width."""
    padding = dilation * (kernel_size // 2)
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel_size, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


class UNetSmall(PretrainedNetwork):
    """Four 2x2 poolings down, lateral 1x1 convolutions and bilinear steps up, logits at stride 1.

    The last step is a pixel shuffle from stride 2 with no full-resolution shortcut, so a stroke of
    one pixel reaches the mask only if ``pool1`` kept it.

    Shape:
        [N, 3, H, W] to [N, num_classes, H, W], for H and W multiples of 16.
    """

    original_pooling = dict.fromkeys(("pool1", "pool2", "pool3", "pool4"), "max")
    # Another set of classes may start from a checkpoint of this network.
    untrained = ("head",)
    ppool_options: ClassVar[Mapping[str, Any]] = FROM_SCRATCH

    def __init__(self, *, pools: Poolings, num_classes: int) -> None:
        super().__init__(pools)
        w1, w2, w3, w4, w5 = 16, 32, 48, 64, 96
        self.stem = _conv(3, w1, relu=False)
        self.pool1 = pools("pool1", w1, HALVE, relu=True, alone=True)
        self.encoder1 = _conv(w1, w2, relu=False)
        self.pool2 = pools("pool2", w2, HALVE, relu=True, alone=True)
        self.encoder2 = nn.Sequential(_conv(w2, w3), _conv(w3, w3, relu=False))
        self.pool3 = pools("pool3", w3, HALVE, relu=True, alone=True)
        self.encoder3 = nn.Sequential(_conv(w3, w4), _conv(w4, w4, relu=False))
        self.pool4 = pools("pool4", w4, HALVE, relu=True, alone=True)
        self.context = nn.Sequential(
            _conv(w4, w5), _conv(w5, w5, dilation=2), _conv(w5, w5, dilation=4), _conv(w5, w4, 1)
        )
        self.lateral3 = _conv(w4, w4, 1)
        self.decoder3 = _conv(w4, w3)
        self.lateral2 = _conv(w3, w3, 1)
        self.decoder2 = _conv(w3, w2)
        self.lateral1 = _conv(w2, w2, 1)
        self.decoder1 = _conv(w2, w2)
        self.head = nn.Conv2d(w2, 4 * num_classes, 1)
        _start_alike(self.head, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the resolution of ``x``."""
        half = self.encoder1(self.relu_pool("pool1", self.stem(x)))
        quarter = self.encoder2(self.relu_pool("pool2", half, keep=True))
        eighth = self.encoder3(self.relu_pool("pool3", quarter, keep=True))
        y = self.context(self.relu_pool("pool4", eighth, keep=True))
        y = self.decoder3(upsample(y) + self.lateral3(F.relu(eighth)))
        y = self.decoder2(upsample(y) + self.lateral2(F.relu(quarter)))
        y = self.decoder1(upsample(y) + self.lateral1(F.relu(half)))
        return F.pixel_shuffle(self.head(y), 2)


def _start_alike(head: nn.Conv2d, group: int) -> None:
    """Give the channels that become one pixel block equal weights.

    A pixel shuffle of random channels leaves a checkerboard wherever the classes are close
    (Aitken et al., "Checkerboard artifact free sub-pixel convolution", 2017).
    """
    for parameter in head.parameters():
        first = parameter.detach()[::group]
        parameter.data.copy_(first.repeat_interleave(group, dim=0))
