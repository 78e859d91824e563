"""VGG-16 at stride 16: the first network of Section 4.1."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from ppool.models._layers import PretrainedNetwork, classifier, conv
from ppool.models._pooling import Poolings
from ppool.window import Window

__all__ = ["VGG16", "VGG16Trunk"]

_CONVS = (
    "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3",
    "conv4_1", "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3",
)  # fmt: skip
_TORCHVISION = dict(zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), _CONVS, strict=True))


class VGG16Trunk(PretrainedNetwork):
    """The thirteen convolutions and five poolings of Simonyan and Zisserman's configuration D.

    Args:
        pools: Builds ``pool1`` to ``pool5``.
        down: The window of ``pool1`` to ``pool4``.
        last: The window of ``pool5``.
    """

    original_pooling = dict.fromkeys(("pool1", "pool2", "pool3", "pool4", "pool5"), "max")

    def __init__(self, pools: Poolings, down: Window, last: Window) -> None:
        super().__init__()
        self.conv1_1 = conv(3, 64, 3)
        self.conv1_2 = conv(64, 64, 3)
        self.pool1 = pools("pool1", 64, down, convs=(self.conv1_2,))
        self.conv2_1 = conv(64, 128, 3)
        self.conv2_2 = conv(128, 128, 3)
        self.pool2 = pools("pool2", 128, down, convs=(self.conv2_2,))
        self.conv3_1 = conv(128, 256, 3)
        self.conv3_2 = conv(256, 256, 3)
        self.conv3_3 = conv(256, 256, 3)
        self.pool3 = pools("pool3", 256, down, convs=(self.conv3_3,))
        self.conv4_1 = conv(256, 512, 3)
        self.conv4_2 = conv(512, 512, 3)
        self.conv4_3 = conv(512, 512, 3)
        self.pool4 = pools("pool4", 512, down, convs=(self.conv4_3,))
        self.conv5_1 = conv(512, 512, 3)
        self.conv5_2 = conv(512, 512, 3)
        self.conv5_3 = conv(512, 512, 3)
        self.pool5 = pools("pool5", 512, last, convs=(self.conv5_3,))

    def features(self, x: Tensor) -> Tensor:
        """What ``pool5`` gives, [N, 512, h, w]."""
        x = F.relu(self.conv1_1(x), inplace=True)
        x = F.relu(self.conv1_2(x), inplace=True)
        x = self.pool1(x)  # stride 2
        x = F.relu(self.conv2_1(x), inplace=True)
        x = F.relu(self.conv2_2(x), inplace=True)
        x = self.pool2(x)  # stride 4
        x = F.relu(self.conv3_1(x), inplace=True)
        x = F.relu(self.conv3_2(x), inplace=True)
        x = F.relu(self.conv3_3(x), inplace=True)
        x = self.pool3(x)  # stride 8
        x = F.relu(self.conv4_1(x), inplace=True)
        x = F.relu(self.conv4_2(x), inplace=True)
        x = F.relu(self.conv4_3(x), inplace=True)
        x = self.pool4(x)  # stride 16
        x = F.relu(self.conv5_1(x), inplace=True)
        x = F.relu(self.conv5_2(x), inplace=True)
        x = F.relu(self.conv5_3(x), inplace=True)
        y: Tensor = self.pool5(x)
        return y

    @classmethod
    def convert(cls, key: str, tensor: Tensor) -> tuple[str, Tensor]:
        """Torchvision's ``features.N`` to our names; its fully connected layers stay unused."""
        group, _, rest = key.partition(".")
        index, _, kind = rest.partition(".")
        if group == "features" and index.isdigit() and int(index) in _TORCHVISION:
            return f"{_TORCHVISION[int(index)]}.{kind}", tensor
        return key, tensor


class VGG16(VGG16Trunk):
    """VGG-16 with the stride of ``pool5`` removed and a linear classifier.

    Choices where the paper is silent:

    - ``pool5`` stays 2x2 without padding, the literal edit, which also keeps the branches at
      10,304 parameters (less than 0.08 % of the convolutions, Section 3.5). The map therefore
      loses a row and a column, evenly from both sides.
    - The head is one 1x1 convolution: Section 4.1 compares poolings, and the fully connected
      layers of the classification network expect a 7x7 map.

    Pretrained weights: torchvision ``vgg16``, for RGB in [0, 1] normalised by mean 0.485, 0.456,
    0.406 and std 0.229, 0.224, 0.225.

    Shape:
        [N, 3, H, W] to [N, num_classes, H / 16 - 1, W / 16 - 1], for H and W multiples of 16 and
        at least 32; H / 16, W / 16 where a convolution takes the place of ``pool5``.
    """

    def __init__(self, *, pooling: str | Mapping[str, str], num_classes: int) -> None:
        pools = Poolings(pooling, self.original_pooling)
        super().__init__(pools, down=Window.of(2), last=Window.of(2, 1))
        self.score = classifier(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at stride 16."""
        y: Tensor = self.score(self.features(x))
        return y
