"""DeepLab LargeFOV on VGG16-20M at stride 16 (Table 4; Chen et al., ICLR 2015)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ppool.models._layers import classifier, conv
from ppool.models._pooling import Poolings
from ppool.models.vgg16 import VGG16Trunk
from ppool.window import Window

__all__ = ["DeepLabLargeFOV"]


class DeepLabLargeFOV(VGG16Trunk):
    """VGG-16 with 3x3 poolings, then ``fc6`` dilated and ``fc7``, 1,024 channels each.

    Choices where the paper is silent:

    - ``pool1`` to ``pool4`` halve the map and ``pool5`` keeps it ("the stride of the pool5 layer is
      removed"), so ``conv5`` needs no dilation at stride 16.
    - ``fc6`` has dilation 6: DeepLab's 12 at stride 8, so the field of view in pixels is the same.
    - ``pool5a``, DeepLab's average pooling after ``pool5``, is a stage too: Section 4.2 replaces
      "other pooling layers whose stride is 1".
    - ``fc6`` and ``fc7`` start random: no torchvision file has them at this size.
    - Sizes round down where Caffe's pooling rounds up; on DeepLab's 32 k - 31 they agree.

    Pretrained weights: torchvision ``vgg16``, normalised as for :class:`ppool.models.vgg16.VGG16`.

    Shape:
        [N, 3, H, W] to [N, num_classes, ceil(H / 16), ceil(W / 16)].
    """

    original_pooling = VGG16Trunk.original_pooling | {"pool5a": "average"}
    untrained = ("fc6", "fc7", "fc8")

    def __init__(self, *, pools: Poolings, num_classes: int) -> None:
        keep = Window.of(3, 1, 1)
        super().__init__(pools, down=Window.of(3, 2, 1), last=keep)
        self.pool5a = pools("pool5a", 512, keep)
        self.fc6 = conv(512, 1024, 3, dilation=6)
        self.fc7 = conv(1024, 1024, 1)
        self.dropout = nn.Dropout(0.5)
        self.fc8 = classifier(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at stride 16."""
        x = self.pool5a(self.features(x))
        x = self.dropout(F.relu(self.fc6(x), inplace=True))
        x = self.dropout(F.relu(self.fc7(x), inplace=True))
        y: Tensor = self.fc8(x)
        return y
