"""Layers and manners the paper's networks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from ppool.models._pooling import Poolings

__all__ = [
    "CAFFE_MEAN",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PooledNetwork",
    "PretrainedNetwork",
    "classifier",
    "conv",
    "conv_bn_relu",
    "from_caffe",
    "upsample",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Of ImageNet's blue, green and red in 0..255, as Keras' and Caffe's VGG-16 subtract it.
CAFFE_MEAN = (103.939, 116.779, 123.68)


class PooledNetwork(nn.Module):
    """A segmentation network built with any pooling, before or after its ReLUs.

    Args:
        pools: Builds the poolings.
    """

    # The pooling of each stage in the published network; a stage is the layer's path.
    original_pooling: ClassVar[Mapping[str, str]]
    # Keyword arguments of ppool.PPool2d that this network starts with.
    ppool_options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, pools: Poolings) -> None:
        super().__init__()
        self._pool_first = pools.first

    def relu_pool(self, stage: str, x: Tensor, *, keep: bool = False) -> Tensor:
        """ReLU and the pooling of ``stage``, in the order that the network was built for.

        ``x`` is overwritten unless it is to ``keep``.
        """
        pool = self.get_submodule(stage)
        if self._pool_first:
            return F.relu(pool(x))
        y: Tensor = pool(F.relu(x, inplace=not keep))
        return y


class PretrainedNetwork(PooledNetwork):
    """A network whose trunk exists with published classification weights."""

    # Layers that classification weights cannot have: they start from random numbers.
    untrained: ClassVar[tuple[str, ...]] = ("score",)

    @classmethod
    def convert(cls, tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
        """For each key of a published file our key and tensor; any other key stays as it is."""
        return {key: (key, tensor) for key, tensor in tensors.items()}


def from_caffe(
    weight: Tensor, bias: Tensor, mean: tuple[float, float, float]
) -> tuple[Tensor, Tensor]:
    """A first convolution for BGR in 0..255 less a mean, made one for torchvision's input.

    With ``u = 255 std z + 255 mean' - mean``, both see the same image, padding apart, whose zeros
    are torchvision's mean instead of Caffe's, a grey level away.

    Shape:
        ``weight`` [C, 3, k, k] and ``bias`` [C].

    Args:
        weight: Its weights.
        bias: Its biases.
        mean: Of blue, green and red, in 0..255.
    """
    rgb = weight.flip(1)
    scale = 255 * torch.tensor(IMAGENET_STD)
    offset = 255 * torch.tensor(IMAGENET_MEAN) - torch.tensor(mean[::-1])
    shift = (rgb.sum((2, 3)) * offset).sum(1)
    return rgb * scale[:, None, None], bias + shift


def conv(
    inputs: int,
    outputs: int,
    kernel_size: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """A convolution for a ReLU (He et al., ICCV 2015); at stride 1 it keeps height and width."""
    padding = dilation * (kernel_size // 2)
    layer = nn.Conv2d(inputs, outputs, kernel_size, stride, padding, dilation, bias=bias)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv_bn_relu(
    inputs: int, outputs: int, kernel_size: int, *, dilation: int = 1
) -> nn.Sequential:
    """Convolution, batch norm, ReLU; keeps height and width."""
    layer = conv(inputs, outputs, kernel_size, dilation=dilation, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def classifier(channels: int, num_classes: int) -> nn.Conv2d:
    """The 1x1 convolution that scores each class, started as DeepLab's: Gaussian of 0.01."""
    layer = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def upsample(x: Tensor) -> Tensor:
    """Twice the height and width, bilinear."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
