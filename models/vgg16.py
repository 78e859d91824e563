"""VGG-16 at stride 16: the first network of Section 4.1."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from ppool.models._layers import (
    CAFFE_MEAN,
    PretrainedNetwork,
    classifier,
    conv,
    from_caffe,
)
from ppool.models._pooling import Poolings
from ppool.window import Window

__all__ = ["VGG16", "VGG16Trunk"]

_CONVS = (
    "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3",
    "conv4_1", "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3",
)  # fmt: skip
# A convolution's kernel and bias in Keras 3's HDF5 of blocks, and in the files of Keras' own VGG16.
_KERAS_3 = re.compile(r"block([1-5])/layers/conv2d(?:_(\d))?/vars/([01])")
_KERAS = re.compile(r"block([1-5])_conv(\d)/(?:block\1_conv\2[/_])?(kernel|bias|W_1|b_1)(?::0)?")
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
        super().__init__(pools)

        def before(stage: str, inputs: int, outputs: int) -> nn.Conv2d:
            window = last if stage == "pool5" else down
            return conv(inputs, outputs, 3, stride=pools.stride(stage, window))

        self.conv1_1 = conv(3, 64, 3)
        self.conv1_2 = before("pool1", 64, 64)
        self.pool1 = pools("pool1", 64, down, relu=True)
        self.conv2_1 = conv(64, 128, 3)
        self.conv2_2 = before("pool2", 128, 128)
        self.pool2 = pools("pool2", 128, down, relu=True)
        self.conv3_1 = conv(128, 256, 3)
        self.conv3_2 = conv(256, 256, 3)
        self.conv3_3 = before("pool3", 256, 256)
        self.pool3 = pools("pool3", 256, down, relu=True)
        self.conv4_1 = conv(256, 512, 3)
        self.conv4_2 = conv(512, 512, 3)
        self.conv4_3 = before("pool4", 512, 512)
        self.pool4 = pools("pool4", 512, down, relu=True)
        self.conv5_1 = conv(512, 512, 3)
        self.conv5_2 = conv(512, 512, 3)
        self.conv5_3 = before("pool5", 512, 512)
        self.pool5 = pools("pool5", 512, last, relu=True)

    def features(self, x: Tensor) -> Tensor:
        """What ``pool5`` gives, [N, 512, h, w]."""
        x = F.relu(self.conv1_1(x), inplace=True)
        x = self.relu_pool("pool1", self.conv1_2(x))  # stride 2
        x = F.relu(self.conv2_1(x), inplace=True)
        x = self.relu_pool("pool2", self.conv2_2(x))  # stride 4
        x = F.relu(self.conv3_1(x), inplace=True)
        x = F.relu(self.conv3_2(x), inplace=True)
        x = self.relu_pool("pool3", self.conv3_3(x))  # stride 8
        x = F.relu(self.conv4_1(x), inplace=True)
        x = F.relu(self.conv4_2(x), inplace=True)
        x = self.relu_pool("pool4", self.conv4_3(x))  # stride 16
        x = F.relu(self.conv5_1(x), inplace=True)
        x = F.relu(self.conv5_2(x), inplace=True)
        return self.relu_pool("pool5", self.conv5_3(x))

    @classmethod
    def convert(cls, tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
        """Torchvision's ``features.N`` and Keras' ``blockN`` to our names.

        Keras' weights are Caffe's: for BGR, in 0..255. Their first convolution is changed to take
        what torchvision's takes, so that one normalisation serves both; the features keep
        Caffe's scale, some 58 times torchvision's. Fully connected layers stay unused.
        """
        found = {key: (_our_name(key), tensor) for key, tensor in tensors.items()}
        keras = {ours: key for key, (ours, _) in found.items() if key.startswith("block")}
        for ours, key in keras.items():
            if ours.endswith(".weight"):  # [height, width, inputs, outputs]
                found[key] = ours, found[key][1].permute(3, 2, 0, 1)
        first = [keras.get(f"conv1_1.{kind}") for kind in ("weight", "bias")]
        if first[0] is not None and first[1] is not None:
            weight, bias = from_caffe(found[first[0]][1], found[first[1]][1], CAFFE_MEAN)
            found[first[0]] = "conv1_1.weight", weight
            found[first[1]] = "conv1_1.bias", bias
        return found


def _our_name(key: str) -> str:
    group, _, rest = key.partition(".")
    index, _, kind = rest.partition(".")
    if group == "features" and index.isdigit() and int(index) in _TORCHVISION:
        return f"{_TORCHVISION[int(index)]}.{kind}"
    if match := _KERAS_3.fullmatch(key):
        block, number, kind = match.groups()
        return f"conv{block}_{int(number or 0) + 1}.{('weight', 'bias')[int(kind)]}"
    if match := _KERAS.fullmatch(key):
        block, number, kind = match.groups()
        return f"conv{block}_{number}.{'weight' if kind in {'kernel', 'W_1'} else 'bias'}"
    return key


class VGG16(VGG16Trunk):
    """VGG-16 with the stride of ``pool5`` removed and a linear classifier.

    Choices where the paper is silent:

    - ``pool5`` is 3x3, padded, as in DeepLab's VGG-16 and the first author's
      (github.com/kfxw/mydev-pytorch-semantic-segmentation, ``networks/VGGModels.py`` at 2c33d6a).
      A 2x2 window that keeps its size would see half a cell, 8 pixels, to one side, and one without
      padding loses a row and a column, so that logits stretched over the image were off by 4 pixels
      on average and by 8 at the edges: rows of Table 1 whose poolings keep the size would not be
      comparable with it.
    - The branches have 12,864 parameters. Section 3.5's "less than 0.08 % of the overall
      parameters" holds of the VGG-16 that is published, with its fully connected layers; of the
      convolutions alone they are 0.087 %.
    - The head is one 1x1 convolution: Section 4.1 compares poolings, and the fully connected
      layers of the classification network expect a 7x7 map.

    Pretrained weights: torchvision ``vgg16``, or Keras' in HDF5, for RGB in [0, 1] normalised by
    mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225.

    Shape:
        [N, 3, H, W] to [N, num_classes, H / 16, W / 16], for H and W multiples of 16.
    """

    def __init__(self, *, pools: Poolings, num_classes: int) -> None:
        super().__init__(pools, down=Window.of(2), last=Window.of(3, 1, 1))
        self.score = classifier(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at stride 16."""
        y: Tensor = self.score(self.features(x))
        return y
