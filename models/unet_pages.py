"""The network of the model that ships: a U-Net that sees ink from afar, and its edge from near."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from ppool.models._layers import PretrainedNetwork, conv_bn_relu, upsample
from ppool.models._pooling import Poolings
from ppool.models.unet_small import FROM_SCRATCH, HALVE

__all__ = ["UNetPages"]


class UNetPages(PretrainedNetwork):
    """Five 2x2 poolings down, lateral 1x1 convolutions and bilinear steps up, logits at stride 1.

    What pays for wide context is that it is computed at strides 16 and 32. The last step meets the
    stem's own pixels: sixteen channels shuffled up from stride 2 say what to expect of each pixel,
    the stem says how dark it is, and one ReLU lets a label depend on both.

    Shape:
        [N, 3, H, W] to [N, num_classes, H, W], for H and W multiples of 32.
    """

    original_pooling = dict.fromkeys(("pool1", "pool2", "pool3", "pool4", "pool5"), "max")
    # Another set of classes may start from the model that ships.
    untrained = ("head",)
    ppool_options: ClassVar[Mapping[str, Any]] = FROM_SCRATCH

    def __init__(self, *, pools: Poolings, num_classes: int) -> None:
        super().__init__(pools)
        w1, w2, w3, w4, w5, w6 = 16, 32, 48, 64, 96, 128
        self.stem = _conv_bn(3, w1)
        self.pool1 = pools("pool1", w1, HALVE, relu=True, alone=True)
        self.encoder1 = _conv_bn(w1, w2)
        self.pool2 = pools("pool2", w2, HALVE, relu=True, alone=True)
        self.encoder2 = nn.Sequential(conv_bn_relu(w2, w3, 3), _conv_bn(w3, w3))
        self.pool3 = pools("pool3", w3, HALVE, relu=True, alone=True)
        self.encoder3 = nn.Sequential(conv_bn_relu(w3, w4, 3), _conv_bn(w4, w4))
        self.pool4 = pools("pool4", w4, HALVE, relu=True, alone=True)
        self.encoder4 = nn.Sequential(conv_bn_relu(w4, w5, 3), _conv_bn(w5, w5))
        self.pool5 = pools("pool5", w5, HALVE, relu=True, alone=True)
        self.context = nn.Sequential(
            conv_bn_relu(w5, w6, 3),
            conv_bn_relu(w6, w6, 3, dilation=2),
            conv_bn_relu(w6, w6, 3, dilation=4),
            conv_bn_relu(w6, w5, 1),
        )
        self.lateral4 = conv_bn_relu(w5, w5, 1)
        self.decoder4 = conv_bn_relu(w5, w4, 3)
        self.lateral3 = conv_bn_relu(w4, w4, 1)
        self.decoder3 = conv_bn_relu(w4, w3, 3)
        self.lateral2 = conv_bn_relu(w3, w3, 1)
        self.decoder2 = conv_bn_relu(w3, w2, 3)
        self.lateral1 = conv_bn_relu(w2, w2, 1)
        self.decoder1 = conv_bn_relu(w2, w2, 3)
        self.expected = nn.Conv2d(w2, 4 * w1, 1)
        self.found = nn.Conv2d(w1, w1, 1, bias=False)
        self.head = nn.Conv2d(w1, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the resolution of ``x``."""
        full = self.stem(x)
        half = self.encoder1(self.relu_pool("pool1", full, keep=True))
        quarter = self.encoder2(self.relu_pool("pool2", half, keep=True))
        eighth = self.encoder3(self.relu_pool("pool3", quarter, keep=True))
        sixteenth = self.encoder4(self.relu_pool("pool4", eighth, keep=True))
        y = self.context(self.relu_pool("pool5", sixteenth, keep=True))
        y = self.decoder4(upsample(y) + self.lateral4(F.relu(sixteenth)))
        y = self.decoder3(upsample(y) + self.lateral3(F.relu(eighth)))
        y = self.decoder2(upsample(y) + self.lateral2(F.relu(quarter)))
        y = self.decoder1(upsample(y) + self.lateral1(F.relu(half)))
        y = F.pixel_shuffle(self.expected(y), 2) + self.found(F.relu(full))
        logits: Tensor = self.head(F.relu(y, inplace=True))
        return logits


def _conv_bn(inputs: int, outputs: int) -> nn.Sequential:
    """Convolution and batch norm; the ReLU belongs to the pooling that follows."""
    return nn.Sequential(*list(conv_bn_relu(inputs, outputs, 3))[:2])
