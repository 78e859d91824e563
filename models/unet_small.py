"""The small network that ships: a U-Net whose only path from the image is through its poolings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from ppool.models._layers import upsample
from ppool.models._pooling import Poolings
from ppool.window import Window

__all__ = ["UNetSmall"]

# Trained from scratch there is no max-pooled network to preserve, so alpha starts where it can
# still move: dy/dalpha falls as 1 / alpha ** 2. Batch norm keeps the branch's input near 1, so it
# needs no factor of 100.
FROM_SCRATCH = {"alpha_init": 2.0, "input_scale": 1.0}

HALVE = Window.of(2)


def _conv(inputs: int, outputs: int, kernel_size: int = 3, dilation: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU; keeps height and width."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UNetSmall(nn.Module):
    """Four 2x2 poolings down, lateral 1x1 convolutions and bilinear steps up, logits at stride 1.

    The last step is a pixel shuffle from stride 2 with no full-resolution shortcut, so a stroke of
    one pixel reaches the mask only if ``pool1`` kept it.

    Shape:
        [N, 3, H, W] to [N, num_classes, H, W], for H and W multiples of 16.
    """

    original_pooling: ClassVar = dict.fromkeys(("pool1", "pool2", "pool3", "pool4"), "max")

    def __init__(self, *, pooling: str | Mapping[str, str], num_classes: int) -> None:
        super().__init__()
        pools = Poolings(pooling, self.original_pooling, FROM_SCRATCH)
        w1, w2, w3, w4, w5 = 16, 32, 48, 64, 96
        self.stem = _conv(3, w1)
        self.pool1 = pools("pool1", w1, HALVE)
        self.encoder1 = _conv(w1, w2)
        self.pool2 = pools("pool2", w2, HALVE)
        self.encoder2 = nn.Sequential(_conv(w2, w3), _conv(w3, w3))
        self.pool3 = pools("pool3", w3, HALVE)
        self.encoder3 = nn.Sequential(_conv(w3, w4), _conv(w4, w4))
        self.pool4 = pools("pool4", w4, HALVE)
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
        half = self.encoder1(self.pool1(self.stem(x)))
        quarter = self.encoder2(self.pool2(half))
        eighth = self.encoder3(self.pool3(quarter))
        y = self.context(self.pool4(eighth))
        y = self.decoder3(upsample(y) + self.lateral3(eighth))
        y = self.decoder2(upsample(y) + self.lateral2(quarter))
        y = self.decoder1(upsample(y) + self.lateral1(half))
        return F.pixel_shuffle(self.head(y), 2)


def _start_alike(head: nn.Conv2d, group: int) -> None:
    """Give the channels that become one pixel block equal weights.

    A pixel shuffle of random channels leaves a checkerboard wherever the classes are close
    (Aitken et al., "Checkerboard artifact free sub-pixel convolution", 2017).
    """
    for parameter in head.parameters():
        first = parameter.detach()[::group]
        parameter.data.copy_(first.repeat_interleave(group, dim=0))
