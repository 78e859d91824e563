"""``create_model``: every network by name, with the pooling of your choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ppool.models._layers import PooledNetwork
from ppool.models._pooling import Poolings
from ppool.models.deeplab_largefov import DeepLabLargeFOV
from ppool.models.deeplabv3_xception import DeepLabv3Xception
from ppool.models.fcn8s_inceptionv2 import FCN8sInceptionv2
from ppool.models.resnet50 import ResNet50
from ppool.models.small import ResNetSmall, VGGSmall
from ppool.models.squeezenet_fcn import SqueezeNetFCN
from ppool.models.unet_pages import UNetPages
from ppool.models.unet_small import UNetSmall
from ppool.models.vgg16 import VGG16
from ppool.models.weights import load_weights

__all__ = ["create_model", "list_models", "original_pooling"]

_MODELS: dict[str, type[PooledNetwork]] = {
    "deeplab_largefov": DeepLabLargeFOV,
    "deeplabv3_xception": DeepLabv3Xception,
    "fcn8s_inceptionv2": FCN8sInceptionv2,
    "resnet50": ResNet50,
    "resnet_small": ResNetSmall,
    "squeezenet_fcn": SqueezeNetFCN,
    "unet_pages": UNetPages,
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
    ppool_place: str = "after_relu",
    ppool_options: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
) -> nn.Module:
    """Build a segmentation network.

    Args:
        name: One of :func:`list_models`.
        pooling: One of :func:`ppool.models.list_poolings` for all stages, or a mapping from each
            stage's name to one; :func:`ppool.models.original_pooling` lists the stages.
        num_classes: K.
        ppool_place: ``after_relu``, where published networks pool, or ``before_relu``: wherever
            the pooling of a stage follows a ReLU, the ReLU follows the pooling instead. Max
            pooling is the same function either way; the paper does not say which P-pooling is.
            Behind a ReLU most windows hold zeros, and zeros weigh nothing for any alpha > 0;
            before it, shifted by Eq. 2, every element counts and alpha has something to decide.
            The average, gated, DPP and Lp poolings move alike.
        ppool_options: Keyword arguments of :class:`ppool.PPool2d` in place of the network's own,
            for all stages; where P-pooling replaces an average, alpha still starts at 0.
        weights: A local file for :func:`ppool.models.load_weights`, such as torchvision's
            ``vgg16``, or a file exported from such a network; what it had no tensor for, and what
            was not used, is logged.

    Returns:
        A module from normalised RGB, float32 [N, 3, H, W], to logits [N, K, h, w], with h and w
        the network's own resolution.

    Raises:
        ValueError: if a name is unknown or the weights are incomplete.
        FileNotFoundError: if there is no such file of weights.
    """
    _check(name)
    network: Callable[..., PooledNetwork] = _MODELS[name]
    options = {**_MODELS[name].ppool_options, **(ppool_options or {})}
    pools = Poolings(pooling, original_pooling(name), options, ppool_place)
    model = network(pools=pools, num_classes=num_classes)
    if weights is not None:
        load_weights(model, weights)
    return model


def _check(name: str) -> None:
    if name not in _MODELS:
        raise ValueError(f"network: expected one of {', '.join(list_models())}, got {name!r}")
