"""``create_model``: every network by name, with the pooling of your choice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from ppool.models._layers import PretrainedNetwork
from ppool.models.deeplab_largefov import DeepLabLargeFOV
from ppool.models.deeplabv3_xception import DeepLabv3Xception
from ppool.models.fcn8s_inceptionv2 import FCN8sInceptionv2
from ppool.models.resnet50 import ResNet50
from ppool.models.small import ResNetSmall, VGGSmall
from ppool.models.unet_small import UNetSmall
from ppool.models.vgg16 import VGG16
from ppool.models.weights import load_weights

__all__ = ["create_model", "list_models", "original_pooling"]

_MODELS: dict[str, type[PretrainedNetwork | UNetSmall]] = {
    "deeplab_largefov": DeepLabLargeFOV,
    "deeplabv3_xception": DeepLabv3Xception,
    "fcn8s_inceptionv2": FCN8sInceptionv2,
    "resnet50": ResNet50,
    "resnet_small": ResNetSmall,
    "unet_small": UNetSmall,
    "vgg16": VGG16,
    "vgg_small": VGGSmall,
}


def list_models() -> list[str]:
    """Names accepted by :func:`create_model`."""
    return sorted(_MODELS)


def original_pooling(name: str) -> dict[str, str]:
    """The pooling stages of a network and what the published network has at each.

    It is the baseline of Tables 2, 3 and 5 when passed to :func:`create_model`, and the start of an
    ablation: ``pooling=original_pooling("vgg16") | {"pool1": "ppool"}`` is a row of Table 6. The
    small network, which is nobody's, is compared with max pooling.

    Raises:
        ValueError: if the name is unknown.
    """
    _check(name)
    return dict(_MODELS[name].original_pooling)


def create_model(
    name: str,
    *,
    pooling: str | Mapping[str, str] = "ppool",
    num_classes: int = 21,
    weights: str | Path | None = None,
) -> nn.Module:
    """Build a segmentation network.

    Args:
        name: One of :func:`list_models`.
        pooling: One of :func:`ppool.models.list_poolings` for all stages, or a mapping from each
            stage's name to one; :func:`ppool.models.original_pooling` lists the stages.
        num_classes: K.
        weights: A local file for :func:`ppool.models.load_weights`, such as torchvision's
            ``vgg16``;
            what it had no tensor for, and what was not used, is logged.

    Returns:
        A module from normalised RGB, float32 [N, 3, H, W], to logits [N, K, h, w], with h and w
        the network's own resolution.

    Raises:
        ValueError: if a name is unknown or the weights are incomplete.
        FileNotFoundError: if there is no such file of weights.
    """
    _check(name)
    if not isinstance(pooling, str) and not pooling.keys() <= original_pooling(name).keys():
        stages = ", ".join(original_pooling(name))
        raise ValueError(f"pooling: expected the stages {stages}, got {dict(pooling)!r}")
    model = _MODELS[name](pooling=pooling, num_classes=num_classes)
    if weights is not None:
        load_weights(model, weights)
    return model


def _check(name: str) -> None:
    if name not in _MODELS:
        raise ValueError(f"network: expected one of {', '.join(list_models())}, got {name!r}")
