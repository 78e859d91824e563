"""ResNet-50 at stride 32, pooled instead of strided: the second network of Section 4.1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from ppool.models._layers import PretrainedNetwork, classifier, conv
from ppool.models._pooling import Poolings
from ppool.window import Window

__all__ = ["ResNet50"]


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut (He et al., CVPR 2016), at stride 1.

    Shape:
        [N, inputs, H, W] to [N, 4 * width, H, W].
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = conv(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()
        if inputs != outputs:
            projection = conv(inputs, outputs, 1, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x``."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


def _layer(inputs: int, width: int, blocks: int) -> nn.Sequential:
    first = Bottleneck(inputs, width)
    return nn.Sequential(first, *(Bottleneck(4 * width, width) for _ in range(blocks - 1)))


def _strided(layer: nn.Sequential) -> tuple[nn.Conv2d, ...]:
    """The convolutions of a layer that hold its stride in torchvision's ResNet."""
    paths = ("0.conv2", "0.downsample.0")
    return tuple(cast(nn.Conv2d, layer.get_submodule(path)) for path in paths)


class ResNet50(PretrainedNetwork):
    """ResNet-50 whose strides in conv1, res3a, res4a and res5a became poolings.

    ``pool1`` stays the max pooling it is. Choices where the paper is silent:

    - The inserted poolings are 3x3, stride 2, padding 1, like ``pool1``: their windows are centred
      on the positions that the strided convolutions kept, so pretrained features stay in place.
    - With ``strided_conv`` the strides are where torchvision has them (the 3x3 convolution and the
      projection of the next layer), which gives back the pretrained network itself; this is the
      paper's default ResNet.

    Pretrained weights: torchvision ``resnet50``, for RGB in [0, 1] normalised by mean 0.485, 0.456,
    0.406 and std 0.229, 0.224, 0.225.

    Shape:
        [N, 3, H, W] to [N, num_classes, ceil(H / 32), ceil(W / 32)].
    """

    original_pooling = dict.fromkeys(
        ("pool_conv1", "pool_res2", "pool_res3", "pool_res4"), "strided_conv"
    )

    def __init__(self, *, pooling: str | Mapping[str, str], num_classes: int) -> None:
        super().__init__()
        pools, window = Poolings(pooling, self.original_pooling), Window.of(3, 2, 1)
        self.conv1 = conv(3, 64, 7, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool_conv1 = pools("pool_conv1", 64, window, convs=(self.conv1,))
        self.pool1 = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _layer(64, 64, blocks=3)
        self.layer2 = _layer(256, 128, blocks=4)
        self.layer3 = _layer(512, 256, blocks=6)
        self.layer4 = _layer(1024, 512, blocks=3)
        self.pool_res2 = pools("pool_res2", 256, window, convs=_strided(self.layer2))
        self.pool_res3 = pools("pool_res3", 512, window, convs=_strided(self.layer3))
        self.pool_res4 = pools("pool_res4", 1024, window, convs=_strided(self.layer4))
        self.score = classifier(2048, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """What ``layer4`` gives, [N, 2048, h, w]."""
        x = self.pool_conv1(F.relu(self.bn1(self.conv1(x)), inplace=True))  # stride 2
        x = self.pool_res2(self.layer1(self.pool1(x)))  # stride 8
        x = self.pool_res3(self.layer2(x))  # stride 16
        x = self.pool_res4(self.layer3(x))  # stride 32
        y: Tensor = self.layer4(x)
        return y

    def forward(self, x: Tensor) -> Tensor:
        """Logits at stride 32."""
        y: Tensor = self.score(self.features(x))
        return y
