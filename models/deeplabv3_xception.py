"""DeepLabv3 on Xception at stride 16, with ASPP (Table 4; Chen et al., 2017; Chollet, 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppool.models._layers import PretrainedNetwork, classifier, conv, conv_bn_relu
from ppool.models._pooling import Poolings
from ppool.window import Window

__all__ = ["ASPP", "DeepLabv3Xception"]


class SeparableConv(nn.Module):
    """A 3x3 depthwise convolution, then a 1x1 one; at stride 1 it keeps height and width."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            inputs, inputs, 3, stride, dilation, dilation, groups=inputs, bias=False
        )
        self.pointwise = conv(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x``."""
        y: Tensor = self.pointwise(self.conv1(x))
        return y


class Block(nn.Module):
    """Separable convolutions, a pooling if the block has one, and a shortcut around both.

    Args:
        widths: Channels of the input and after each convolution.
        dilation: Of the convolutions.
        first_relu: Whether a ReLU comes before the first convolution too.
        pool_stride: Stride of the block; ``None`` leaves out its pooling and projection.
        pools: Builds the pooling.
        name: The block's name in its network.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        *,
        dilation: int = 1,
        first_relu: bool = True,
        pool_stride: int | None = None,
        pools: Poolings,
        name: str,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        window = None if pool_stride is None else Window.of(3, pool_stride, 1)
        moved = 1 if window is None else pools.stride(f"{name}.pool", window)
        for index, (inputs, outputs) in enumerate(pairwise(widths), 2):
            stride = moved if index == len(widths) else 1
            separable = SeparableConv(inputs, outputs, dilation, stride)
            layers += [nn.ReLU(), separable, nn.BatchNorm2d(outputs)]
        self.rep = nn.Sequential(*layers[0 if first_relu else 1 :])
        self.pool: nn.Module = nn.Identity()
        self.skip: nn.Module = nn.Identity()
        self.skipbn: nn.Module = nn.Identity()
        if window is not None:
            self.skip = nn.Conv2d(widths[0], widths[-1], 1, window.stride, bias=False)
            self.skipbn = nn.BatchNorm2d(widths[-1])
            # No ReLU after the last batch norm: what is pooled can be negative.
            self.pool = pools(f"{name}.pool", widths[-1], window, signed=True)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x``."""
        y: Tensor = self.pool(self.rep(x)) + self.skipbn(self.skip(x))
        return y


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling at stride 16: rates 6, 12, 18 and the whole image.

    Shape:
        [N, inputs, H, W] to [N, 256, H, W]; N >= 2 in training, where batch norm sees one value of
        the whole image for each sample.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [conv_bn_relu(inputs, 256, 1)]
            + [conv_bn_relu(inputs, 256, 3, dilation=rate) for rate in (6, 12, 18)]
        )
        self.image = conv_bn_relu(inputs, 256, 1)
        self.project = conv_bn_relu(5 * 256, 256, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x``."""
        whole = self.image(x.mean((2, 3), keepdim=True))  # [N, 256, 1, 1]
        views = [branch(x) for branch in self.branches]
        y: Tensor = self.project(torch.cat([*views, whole.expand_as(views[0])], 1))
        return y


class DeepLabv3Xception(PretrainedNetwork):
    """Xception with poolings for its strides, then ASPP.

    Choices where the paper is silent:

    - "Xception-38" is Chollet's Xception: its 2 plain and 34 separable convolutions are the nearest
      to 38 layers, and its blocks end in poolings, unlike the later "aligned" Xception.
    - A pooling takes the stride of ``conv1``. The projections of the shortcuts keep theirs: they
      only bring the shortcut to the size of the pooled path.
    - Blocks pool before any ReLU, so P-pooling shifts (Eq. 2). The shift lessens how selective an
      exponent is, so the start and the clip are 70 and 110 here, not 20 and 35.
    - At stride 16 ``block12`` pools with stride 1 and dilations are 2, 4 and 8 from there on, the
      multi-grid (1, 2, 4) of DeepLabv3 times the rate 2.

    Pretrained weights: ``xception`` as Cadene and timm (``legacy_xception``) have it, for RGB in
    [0, 1] normalised by mean 0.5 and std 0.5.

    Shape:
        [N, 3, H, W] to [N, num_classes, H / 16, W / 16], for H and W multiples of 16; N >= 2 in
        training.
    """

    original_pooling = {"pool_conv1": "strided_conv"} | dict.fromkeys(
        ("block1.pool", "block2.pool", "block3.pool", "block12.pool"), "max"
    )
    untrained = ("aspp", "score")
    ppool_options: ClassVar[Mapping[str, Any]] = {"alpha_init": 70.0, "alpha_max": 110.0}

    def __init__(self, *, pools: Poolings, num_classes: int) -> None:
        super().__init__(pools)
        window = Window.of(3, 2, 1)
        # The two first convolutions have no padding in Xception.
        self.conv1 = nn.Conv2d(3, 32, 3, pools.stride("pool_conv1", window), bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.pool_conv1 = pools("pool_conv1", 32, window, relu=True)
        self.conv2 = nn.Conv2d(32, 64, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(64)

        def down(name: str, inputs: int, outputs: int) -> Block:
            relu = name != "block1"
            widths = (inputs, outputs, outputs)
            return Block(widths, first_relu=relu, pool_stride=2, pools=pools, name=name)

        self.block1 = down("block1", 64, 128)
        self.block2 = down("block2", 128, 256)
        self.block3 = down("block3", 256, 728)
        for name in (f"block{number}" for number in range(4, 12)):
            self.add_module(name, Block((728, 728, 728, 728), pools=pools, name=name))
        self.block12 = Block(
            (728, 728, 1024), dilation=2, pool_stride=1, pools=pools, name="block12"
        )
        self.conv3 = SeparableConv(1024, 1536, dilation=4)
        self.bn3 = nn.BatchNorm2d(1536)
        self.conv4 = SeparableConv(1536, 2048, dilation=8)
        self.bn4 = nn.BatchNorm2d(2048)
        self.aspp = ASPP(2048)
        self.score = classifier(256, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """What ``conv4`` gives, [N, 2048, h, w]."""
        x = self.relu_pool("pool_conv1", self.bn1(self.conv1(x)))  # stride 2
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        for number in range(1, 13):  # stride 4, 8, 16 after blocks 1, 2, 3
            x = self.get_submodule(f"block{number}")(x)
        x = F.relu(self.bn3(self.conv3(x)), inplace=True)
        return F.relu(self.bn4(self.conv4(x)), inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at stride 16."""
        y: Tensor = self.score(self.aspp(self.features(x)))
        return y
