"""ResNet-50 at stride 32, pooled instead of strided: the second network of Section 4.1."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ppool.models._layers import PretrainedNetwork, classifier, conv
from ppool.models._pooling import Poolings
from ppool.window import Window

__all__ = ["ResNet50"]


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut (He et al., CVPR 2016).

    Shape:
        [N, inputs, H, W] to [N, 4 * width, ceil(H / stride), ceil(W / stride)].

    Args:
        inputs: Channels of the input.
        width: Channels of the 3x3 convolution.
        stride: Held by the 3x3 convolution and the projection, as in torchvision.
        relu: Whether the sum goes through a ReLU.
    """

    def __init__(self, inputs: int, width: int, stride: int = 1, *, relu: bool = True) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = conv(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride=stride, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()
        if inputs != outputs:
            projection = conv(inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x``."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        z: Tensor = self.bn3(self.conv3(y)) + self.downsample(x)
        return F.relu(z, inplace=True) if self.relu else z


def _layer(inputs: int, width: int, blocks: int, stride: int = 1) -> nn.Sequential:
    """Blocks without the last one's ReLU, which belongs to the pooling that follows."""
    first = Bottleneck(inputs, width, stride)
    rest = (Bottleneck(4 * width, width, relu=block < blocks) for block in range(2, blocks + 1))
    return nn.Sequential(first, *rest)


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

    def __init__(self, *, pools: Poolings, num_classes: int) -> None:
        super().__init__(pools)
        window = Window.of(3, 2, 1)
        stride_2, stride_3, stride_4 = (
            pools.stride(stage, window) for stage in ("pool_res2", "pool_res3", "pool_res4")
        )
        self.conv1 = conv(3, 64, 7, stride=pools.stride("pool_conv1", window), bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool_conv1 = pools("pool_conv1", 64, window, relu=True)
        self.pool1 = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _layer(64, 64, blocks=3)
        self.layer2 = _layer(256, 128, blocks=4, stride=stride_2)
        self.layer3 = _layer(512, 256, blocks=6, stride=stride_3)
        self.layer4 = _layer(1024, 512, blocks=3, stride=stride_4)
        self.pool_res2 = pools("pool_res2", 256, window, relu=True)
        self.pool_res3 = pools("pool_res3", 512, window, relu=True)
        self.pool_res4 = pools("pool_res4", 1024, window, relu=True)
        self.score = classifier(2048, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """What ``layer4`` gives, [N, 2048, h, w]."""
        x = self.relu_pool("pool_conv1", self.bn1(self.conv1(x)))  # stride 2
        x = self.relu_pool("pool_res2", self.layer1(self.pool1(x)))  # stride 8
        x = self.relu_pool("pool_res3", self.layer2(x))  # stride 16
        x = self.relu_pool("pool_res4", self.layer3(x))  # stride 32
        return F.relu(self.layer4(x), inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at stride 32."""
        y: Tensor = self.score(self.features(x))
        return y
