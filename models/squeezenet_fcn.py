"""SqueezeNet v1.0 at stride 8: a small network whose weights know ImageNet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppool.models._layers import PretrainedNetwork, classifier, conv, from_caffe
from ppool.models._pooling import Poolings
from ppool.window import Window

__all__ = ["SqueezeNetFCN"]

# Of blue, green and red, as the released SqueezeNet subtracts it.
_MEAN = (104.0, 117.0, 123.0)
_LAYERS = {"1x1_1": "squeeze", "1x1_2": "expand1x1", "3x3_2": "expand3x3"}
_RELEASED = re.compile(r"(fire\d)/conv(1x1_1|1x1_2|3x3_2)\.(weight|bias)")
_TORCHVISION = re.compile(r"features\.(\d+)\.(?:(squeeze|expand1x1|expand3x3)\.)?(weight|bias)")
_PLACES = dict(zip((3, 4, 5, 7, 8, 9, 10, 12), range(2, 10), strict=True))


class Fire(nn.Module):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 ones side by side, before their ReLU.

    Shape:
        [N, inputs, H, W] to [N, 2 * expanded, H, W].
    """

    def __init__(self, inputs: int, squeezed: int, expanded: int, dilation: int = 1) -> None:
        super().__init__()
        self.squeeze = conv(inputs, squeezed, 1)
        self.expand1x1 = conv(squeezed, expanded, 1)
        self.expand3x3 = conv(squeezed, expanded, 3, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x``."""
        x = F.relu(self.squeeze(x), inplace=True)
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1)


class SqueezeNetFCN(PretrainedNetwork):
    """SqueezeNet v1.0 (Iandola et al., 2016) as a segmentation network.

    - ``pool8`` keeps the map and ``fire9`` is dilated by 2 in its place, so the stride is 8.
    - ``conv1`` and ``pool1`` are padded and ``pool4`` is as published, so that every logit sits
      half a pixel from the centre of the 8 x 8 block that it is stretched over. Unpadded
      throughout, as the classifier is, it would be 5.5 pixels off.
    - Where nothing pools, ``conv1`` takes the stride of ``pool1``, and every other element is kept
      in place of ``pool4``.

    Pretrained weights: the released model as ``.npz`` with Caffe's names (``fire2/conv1x1_1``), or
    torchvision's ``squeezenet1_0``, for RGB in [0, 1] normalised by mean 0.485, 0.456, 0.406 and
    std 0.229, 0.224, 0.225; the released first convolution, made for BGR in 0..255, is changed to
    take that.

    Shape:
        [N, 3, H, W] to [N, num_classes, H / 8, W / 8], for H and W multiples of 8.
    """

    original_pooling = dict.fromkeys(("pool1", "pool4", "pool8"), "max")
    # The released weights keep the scale of 0..255: what is pooled is in the hundreds.
    ppool_options: ClassVar[Mapping[str, Any]] = {"input_scale": 0.01}

    def __init__(self, *, pools: Poolings, num_classes: int) -> None:
        super().__init__(pools)
        first, down, keep = Window.of(3, 2, 1), Window.of(3, 2, ceil_mode=True), Window.of(3, 1, 1)
        self.conv1 = conv(3, 96, 7, stride=2 * pools.stride("pool1", first))
        self.pool1 = pools("pool1", 96, first, relu=True)
        self.fire2 = Fire(96, 16, 64)
        self.fire3 = Fire(128, 16, 64)
        self.fire4 = Fire(128, 32, 128)
        self.pool4 = pools("pool4", 256, down, relu=True, alone=True)
        self.fire5 = Fire(256, 32, 128)
        self.fire6 = Fire(256, 48, 192)
        self.fire7 = Fire(384, 48, 192)
        self.fire8 = Fire(384, 64, 256)
        self.pool8 = pools("pool8", 512, keep, relu=True, alone=True)
        self.fire9 = Fire(512, 64, 256, dilation=2)
        self.score = classifier(512, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """What ``fire9`` gives, [N, 512, h, w]."""
        x = self.relu_pool("pool1", self.conv1(x))  # stride 4
        x = F.relu(self.fire2(x), inplace=True)
        x = F.relu(self.fire3(x), inplace=True)
        x = self.relu_pool("pool4", self.fire4(x))  # stride 8
        x = F.relu(self.fire5(x), inplace=True)
        x = F.relu(self.fire6(x), inplace=True)
        x = F.relu(self.fire7(x), inplace=True)
        x = self.relu_pool("pool8", self.fire8(x))
        return F.relu(self.fire9(x), inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at stride 8."""
        y: Tensor = self.score(self.features(x))
        return y

    @classmethod
    def convert(cls, tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
        """Caffe's and torchvision's names to ours; Caffe's first convolution to our input."""
        found = {key: (_our_name(key), tensor) for key, tensor in tensors.items()}
        weight, bias = tensors.get("conv1.weight"), tensors.get("conv1.bias")
        if weight is not None and bias is not None and "fire2/conv1x1_1.weight" in tensors:
            weight, bias = from_caffe(weight, bias, _MEAN)
            found |= {"conv1.weight": ("conv1.weight", weight), "conv1.bias": ("conv1.bias", bias)}
        return found


def _our_name(key: str) -> str:
    if match := _RELEASED.fullmatch(key):
        fire, layer, kind = match.groups()
        return f"{fire}.{_LAYERS[layer]}.{kind}"
    if match := _TORCHVISION.fullmatch(key):
        place, layer, kind = match.groups()
        if layer is None and place == "0":
            return f"conv1.{kind}"
        if layer is not None and int(place) in _PLACES:
            return f"fire{_PLACES[int(place)]}.{layer}.{kind}"
    return key
