"""Layers and manners the paper's networks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PretrainedNetwork", "classifier", "conv", "conv_bn_relu", "upsample"]


class PretrainedNetwork(nn.Module):
    """A segmentation network whose trunk exists with published classification weights."""

    # The pooling of each stage in the published network; a stage is the layer's path.
    original_pooling: ClassVar[Mapping[str, str]]
    # Layers that classification weights cannot have: they start from random numbers.
    untrained: ClassVar[tuple[str, ...]] = ("score",)

    @classmethod
    def convert(cls, key: str, tensor: Tensor) -> tuple[str, Tensor]:
        """Our key and tensor for one entry of a published file; any other key stays as it is."""
        return key, tensor


def conv(
    inputs: int, outputs: int, kernel_size: int, *, dilation: int = 1, bias: bool = True
) -> nn.Conv2d:
    """A convolution that keeps height and width, for a ReLU (He et al., ICCV 2015)."""
    padding = dilation * (kernel_size // 2)
    layer = nn.Conv2d(inputs, outputs, kernel_size, padding=padding, dilation=dilation, bias=bias)
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
