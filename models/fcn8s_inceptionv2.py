"""FCN-8s on Inception-v2 with batch norm (Table 4; Long et al., 2015; Ioffe and Szegedy, 2015)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppool.models._layers import (
    PooledNetwork,
    PretrainedNetwork,
    classifier,
    conv,
    upsample,
)
from ppool.models._pooling import Poolings
from ppool.window import Window

__all__ = ["FCN8sInceptionv2"]

# Caffe's 3x3 poolings of stride 2 have no padding and round up.
HALVE = Window.of(3, 2, ceil_mode=True)
KEEP = Window.of(3, 1, 1)
# Where a convolution of stride 2 was: centred on the positions that it kept.
UNSTRIDE = Window.of(3, 2, 1)


@dataclass(frozen=True)
class Widths:
    """Channels of one Inception block; one that halves has no ``conv_1x1`` and ``pool_proj``."""

    inputs: int
    conv_3x3: tuple[int, int]
    double_3x3: tuple[int, int, int]
    conv_1x1: int = 0
    pool_proj: int = 0


_KEY = re.compile(r"(?:(inception_\d[a-e])_)?([a-z0-9_]+?)(_bn)?\.(\w+)")


class ConvBN(nn.Module):
    """Convolution with bias, batch norm, ReLU; at stride 1 it keeps height and width."""

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int, stride: int = 1, *, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = conv(inputs, outputs, kernel_size, stride=stride)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x``."""
        y: Tensor = self.bn(self.conv(x))
        return F.relu(y, inplace=True) if self.relu else y


class Inception(nn.Module):
    """Four paths that keep the map's size: 1x1, 3x3, two 3x3, pooling; concatenated."""

    def __init__(self, widths: Widths, pools: Poolings, name: str) -> None:
        super().__init__()
        inputs, (reduced, outputs) = widths.inputs, widths.conv_3x3
        double_reduced, double_1, double_2 = widths.double_3x3
        self.conv_1x1 = ConvBN(inputs, widths.conv_1x1, 1)
        self.conv_3x3_reduce = ConvBN(inputs, reduced, 1)
        self.conv_3x3 = ConvBN(reduced, outputs, 3)
        self.double_3x3_reduce = ConvBN(inputs, double_reduced, 1)
        self.double_3x3_1 = ConvBN(double_reduced, double_1, 3)
        self.double_3x3_2 = ConvBN(double_1, double_2, 3)
        self.pool = pools(f"{name}.pool", inputs, KEEP, alone=True)
        self.pool_proj = ConvBN(inputs, widths.pool_proj, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x``."""
        single = self.conv_3x3(self.conv_3x3_reduce(x))
        double = self.double_3x3_2(self.double_3x3_1(self.double_3x3_reduce(x)))
        return torch.cat([self.conv_1x1(x), single, double, self.pool_proj(self.pool(x))], 1)


class InceptionDown(PooledNetwork):
    """Three paths that halve the map: 3x3, two 3x3, pooling of the input; concatenated."""

    def __init__(self, widths: Widths, pools: Poolings, name: str) -> None:
        super().__init__(pools)
        inputs, (reduced, outputs) = widths.inputs, widths.conv_3x3
        double_reduced, double_1, double_2 = widths.double_3x3
        stride, double_stride = (
            pools.stride(f"{name}.{stage}", UNSTRIDE) for stage in ("pool_3x3", "pool_double")
        )
        self.conv_3x3_reduce = ConvBN(inputs, reduced, 1)
        self.conv_3x3 = ConvBN(reduced, outputs, 3, stride, relu=False)
        self.pool_3x3 = pools(f"{name}.pool_3x3", outputs, UNSTRIDE, relu=True)
        self.double_3x3_reduce = ConvBN(inputs, double_reduced, 1)
        self.double_3x3_1 = ConvBN(double_reduced, double_1, 3)
        self.double_3x3_2 = ConvBN(double_1, double_2, 3, double_stride, relu=False)
        self.pool_double = pools(f"{name}.pool_double", double_2, UNSTRIDE, relu=True)
        self.pool = pools(f"{name}.pool", inputs, HALVE, alone=True)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x``."""
        single = self.conv_3x3(self.conv_3x3_reduce(x))
        double = self.double_3x3_2(self.double_3x3_1(self.double_3x3_reduce(x)))
        single, double = self.relu_pool("pool_3x3", single), self.relu_pool("pool_double", double)
        return torch.cat([single, double, self.pool(x)], 1)


class FCN8sInceptionv2(PretrainedNetwork):
    """BN-Inception scored at strides 8, 16 and 32, added from the coarsest up.

    Section 4.2 replaces "all down-sampling operations as well as other pooling layers whose stride
    is 1": five strides of convolutions and twelve poolings are stages. Choices where the paper is
    silent:

    - The seven average poolings were trained as averages, so P-pooling starts there at alpha = 0.
      Padding is never counted, where Caffe counted it: the outermost row and column differ.
    - Skips are scored on the last block of their stride: 3b (320 channels) and 4d (608), as FCN
      scores the last features before ``pool4`` and ``pool5`` halve them.
    - Steps of two are bilinear, as FCN's frozen deconvolutions are. The last step, of eight, is
      left to whoever resizes the logits.

    Pretrained weights: Cadene's ``bninception``. They were made for BGR; loading reverses the
    channels of the first convolution, so the input is RGB in [0, 1] normalised by mean 123 / 255,
    117 / 255, 104 / 255 and std 1 / 255.

    Shape:
        [N, 3, H, W] to [N, num_classes, H / 8, W / 8], for H and W multiples of 32.
    """

    original_pooling = (
        {"pool_conv1": "strided_conv", "pool1": "max", "pool2": "max"}
        | {f"inception_{at}.pool": "average" for at in ("3a", "3b", "4a", "4b", "4c", "4d", "5a")}
        | {f"inception_{at}.pool": "max" for at in ("3c", "4e", "5b")}
        | {f"inception_{at}.pool_3x3": "strided_conv" for at in ("3c", "4e")}
        | {f"inception_{at}.pool_double": "strided_conv" for at in ("3c", "4e")}
    )
    untrained = ("score3b", "score4d", "score5b")

    def __init__(self, *, pools: Poolings, num_classes: int) -> None:
        super().__init__(pools)
        # A stride that nothing pools moves into the convolution before, both where both do.
        first = pools.stride("pool_conv1", UNSTRIDE) * pools.stride("pool1", HALVE)
        self.conv1_7x7_s2 = ConvBN(3, 64, 7, first, relu=False)
        self.pool_conv1 = pools("pool_conv1", 64, UNSTRIDE, relu=True)
        self.pool1 = pools("pool1", 64, HALVE)
        self.conv2_3x3_reduce = ConvBN(64, 64, 1)
        self.conv2_3x3 = ConvBN(64, 192, 3, pools.stride("pool2", HALVE), relu=False)
        self.pool2 = pools("pool2", 192, HALVE, relu=True)
        self.inception_3a = Inception(
            Widths(192, (64, 64), (64, 96, 96), 64, 32), pools, "inception_3a"
        )
        self.inception_3b = Inception(
            Widths(256, (64, 96), (64, 96, 96), 64, 64), pools, "inception_3b"
        )
        self.inception_3c = InceptionDown(
            Widths(320, (128, 160), (64, 96, 96)), pools, "inception_3c"
        )
        self.inception_4a = Inception(
            Widths(576, (64, 96), (96, 128, 128), 224, 128), pools, "inception_4a"
        )
        self.inception_4b = Inception(
            Widths(576, (96, 128), (96, 128, 128), 192, 128), pools, "inception_4b"
        )
        self.inception_4c = Inception(
            Widths(576, (128, 160), (128, 160, 160), 160, 128), pools, "inception_4c"
        )
        self.inception_4d = Inception(
            Widths(608, (128, 192), (160, 192, 192), 96, 128), pools, "inception_4d"
        )
        self.inception_4e = InceptionDown(
            Widths(608, (128, 192), (192, 256, 256)), pools, "inception_4e"
        )
        self.inception_5a = Inception(
            Widths(1056, (192, 320), (160, 224, 224), 352, 128), pools, "inception_5a"
        )
        self.inception_5b = Inception(
            Widths(1024, (192, 320), (192, 224, 224), 352, 128), pools, "inception_5b"
        )
        self.score3b = classifier(320, num_classes)
        self.score4d = classifier(608, num_classes)
        self.score5b = classifier(1024, num_classes)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What blocks 3b, 4d and 5b give: 320, 608 and 1,024 channels at strides 8, 16 and 32."""
        x = self.pool1(self.relu_pool("pool_conv1", self.conv1_7x7_s2(x)))  # stride 4
        x = self.relu_pool("pool2", self.conv2_3x3(self.conv2_3x3_reduce(x)))  # stride 8
        block_3b = self.inception_3b(self.inception_3a(x))
        x = self.inception_4a(self.inception_3c(block_3b))  # stride 16
        block_4d = self.inception_4d(self.inception_4c(self.inception_4b(x)))
        block_5b = self.inception_5b(self.inception_5a(self.inception_4e(block_4d)))  # stride 32
        return block_3b, block_4d, block_5b

    def forward(self, x: Tensor) -> Tensor:
        """Logits at stride 8."""
        block_3b, block_4d, block_5b = self.features(x)
        y = self.score4d(block_4d) + upsample(self.score5b(block_5b))
        logits: Tensor = self.score3b(block_3b) + upsample(y)
        return logits

    @classmethod
    def convert(cls, tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
        """Cadene's flat names to ours; the first convolution from BGR to RGB."""
        first = "conv1_7x7_s2.weight"
        return {
            key: (_our_name(key), tensor.flip(1) if key == first else tensor)
            for key, tensor in tensors.items()
        }


def _our_name(key: str) -> str:
    match = _KEY.fullmatch(key)
    if match is None:
        return key
    block, layer, norm, kind = match.groups()
    layer = f"conv_{layer}" if layer[0].isdigit() else layer
    path = f"{block}.{layer}" if block else layer
    return f"{path}.{'bn' if norm else 'conv'}.{kind}"
