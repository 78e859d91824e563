"""Small twins of Section 4.1's networks, to compare poolings where there is no GPU."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ppool.models._layers import PretrainedNetwork, classifier, conv, upsample
from ppool.models._pooling import Poolings
from ppool.window import Window

__all__ = ["ResNetSmall", "VGGSmall"]


class SkipScore(nn.Module):
    """Linear classifiers at strides 4, 8 and 16, added from the coarsest up as in FCN-8s.

    Without the finer ones no pooling could give back an object of a few pixels, and the comparison
    would only be about large ones. Each position scores a block of 2x2, so the logits are at stride
    2; nothing comes from before the second pooling.

    Shape:
        Three maps, each half as high and wide as the one before, the first [N, C, H / 4, W / 4], to
        [N, num_classes, H / 2, W / 2].
    """

    def __init__(self, widths: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.stride4, self.stride8, self.stride16 = (
            classifier(width, 4 * num_classes) for width in widths
        )

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> Tensor:
        """Logits at stride 2."""
        y = self.stride8(middle) + upsample(self.stride16(coarse))
        return F.pixel_shuffle(self.stride4(fine) + upsample(y), 2)


class VGGSmall(PretrainedNetwork):
    """VGG's configuration A with few channels, its ``pool5`` at stride 1 as in Section 4.1.

    It has no batch norm, like the VGG of the paper. ``pool5`` is 3x3 and padded, so that it keeps
    the map's size. The finer scores read convolutions whose stride no pooling can change.

    Shape:
        [N, 3, H, W] to [N, num_classes, H / 2, W / 2], for H and W multiples of 16.
    """

    original_pooling = dict.fromkeys(("pool1", "pool2", "pool3", "pool4", "pool5"), "max")
    widths = (16, 32, 48, 64, 96)

    def __init__(self, *, pools: Poolings, num_classes: int) -> None:
        super().__init__(pools)
        down, keep = Window.of(2), Window.of(3, 1, 1)
        w1, w2, w3, w4, w5 = self.widths
        self.conv1 = conv(3, w1, 3, stride=pools.stride("pool1", down))
        self.pool1 = pools("pool1", w1, down, relu=True)
        self.conv2 = conv(w1, w2, 3, stride=pools.stride("pool2", down))
        self.pool2 = pools("pool2", w2, down, relu=True)
        self.conv3_1 = conv(w2, w3, 3)
        self.conv3_2 = conv(w3, w3, 3, stride=pools.stride("pool3", down))
        self.pool3 = pools("pool3", w3, down, relu=True)
        self.conv4_1 = conv(w3, w4, 3)
        self.conv4_2 = conv(w4, w4, 3, stride=pools.stride("pool4", down))
        self.pool4 = pools("pool4", w4, down, relu=True)
        self.conv5_1 = conv(w4, w5, 3)
        self.conv5_2 = conv(w5, w5, 3)
        self.pool5 = pools("pool5", w5, keep, relu=True)
        self.score = SkipScore((w3, w4, w5), num_classes)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What ``conv3_1``, ``conv4_1`` and ``pool5`` give, at strides 4, 8 and 16."""
        x = self.relu_pool("pool1", self.conv1(x))
        x = self.relu_pool("pool2", self.conv2(x))
        fine = F.relu(self.conv3_1(x), inplace=True)
        x = self.relu_pool("pool3", self.conv3_2(fine))
        middle = F.relu(self.conv4_1(x), inplace=True)
        x = self.relu_pool("pool4", self.conv4_2(middle))
        x = F.relu(self.conv5_1(x), inplace=True)
        return fine, middle, self.relu_pool("pool5", self.conv5_2(x))

    def forward(self, x: Tensor) -> Tensor:
        """Logits at stride 2."""
        y: Tensor = self.score(*self.features(x))
        return y


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al., CVPR 2016), before its last ReLU.

    Shape:
        [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)].
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.projection = conv(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x``."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        z: Tensor = self.bn2(self.conv2(y)) + self.projection(x)
        return z


class ResNetSmall(PretrainedNetwork):
    """A residual network of nine convolutions, pooled where Section 4.1 pools ResNet-50.

    Poolings follow the first convolution and the first three of four layers, 3x3 at stride 2 as in
    :class:`ppool.models.resnet50.ResNet50`. ``pool1`` is left out, so that the stride is 16.

    Shape:
        [N, 3, H, W] to [N, num_classes, H / 2, W / 2], for H and W multiples of 16.
    """

    original_pooling = dict.fromkeys(("pool_conv1", "pool_res2", "pool_res3", "pool_res4"), "max")
    widths = (16, 16, 32, 48, 96)

    def __init__(self, *, pools: Poolings, num_classes: int) -> None:
        super().__init__(pools)
        window = Window.of(3, 2, 1)
        w1, w2, w3, w4, w5 = self.widths
        self.conv1 = conv(3, w1, 3, stride=pools.stride("pool_conv1", window), bias=False)
        self.bn1 = nn.BatchNorm2d(w1)
        self.layer1 = BasicBlock(w1, w2)
        self.layer2 = BasicBlock(w2, w3, pools.stride("pool_res2", window))
        self.layer3 = BasicBlock(w3, w4, pools.stride("pool_res3", window))
        self.layer4 = BasicBlock(w4, w5, pools.stride("pool_res4", window))
        self.pool_conv1 = pools("pool_conv1", w1, window, relu=True)
        self.pool_res2 = pools("pool_res2", w2, window, relu=True)
        self.pool_res3 = pools("pool_res3", w3, window, relu=True)
        self.pool_res4 = pools("pool_res4", w4, window, relu=True)
        self.score = SkipScore((w3, w4, w5), num_classes)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What ``layer2``, ``layer3`` and ``layer4`` give, at strides 4, 8 and 16."""
        x = self.relu_pool("pool_conv1", self.bn1(self.conv1(x)))
        layer2 = self.layer2(self.relu_pool("pool_res2", self.layer1(x)))
        layer3 = self.layer3(self.relu_pool("pool_res3", layer2, keep=True))
        layer4 = self.layer4(self.relu_pool("pool_res4", layer3, keep=True))
        return F.relu(layer2), F.relu(layer3), F.relu(layer4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at stride 2."""
        y: Tensor = self.score(*self.features(x))
        return y
