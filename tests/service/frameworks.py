"""Networks of torchvision, segmentation_models.pytorch and transformers, without their weights.

Each is built from its configuration, small where that can be said, with random weights that are
scaled so that every class wins somewhere, and exported by PyTorch as its users do. What the package
declares of axes is kept: most take photos of any size, vision transformers of one.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ppool.export._trace import scores_of

__all__ = ["NETWORKS", "OTHERS", "SIDE", "Network", "built", "normalised", "package", "written"]

CLASSES = 5
SIDE = 64


def package(name: str) -> Any:
    """Import one of those that `make zoo` fetches."""
    if name == "torchvision":
        try:
            import torchvision
        except RuntimeError:
            # Its wheel is for CUDA: beside PyTorch without it, detectors' operators are missing.
            for entry in [entry for entry in sys.modules if entry.startswith("torchvision")]:
                del sys.modules[entry]
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            for operator in ("nms", "qnms"):
                torch.library.define(f"torchvision::{operator}", schema)
            import torchvision
        return torchvision
    package("torchvision")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return __import__(name)


def _torchvision(name: str, **settings: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        package("torchvision")
        from torchvision.models import segmentation

        made: nn.Module = getattr(segmentation, name)(
            weights=None, weights_backbone=None, num_classes=CLASSES, **settings
        )
        return made

    return build


def _smp(name: str, encoder: str = "resnet18", **settings: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        made: nn.Module = getattr(package("segmentation_models_pytorch"), name)(
            encoder, encoder_weights=None, **{"classes": CLASSES, **settings}
        )
        return made

    return build


def _transformers(
    name: str, configuration: Callable[[Any], Mapping[str, Any]]
) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        transformers = package("transformers")
        settings = {"num_labels": CLASSES, **configuration(transformers)}
        base = name.rpartition("For")[0]
        made: nn.Module = getattr(transformers, name)(
            getattr(transformers, f"{base}Config")(**settings)
        )
        return made

    return build


SMALL_VIT = {
    "image_size": SIDE,
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"], "depths": [1, 1, 1, 1]}
BEIT = {**SMALL_VIT, "out_indices": [1, 2, 3, 4], "pool_scales": [1, 2]}


def _beit(_: Any) -> Mapping[str, Any]:
    return {**BEIT, "use_mask_token": False}


def _relative_beit(_: Any) -> Mapping[str, Any]:
    positions = {"use_relative_position_bias": True, "use_absolute_position_embeddings": False}
    return {**BEIT, "use_mask_token": False, **positions}


def _segformer(_: Any) -> Mapping[str, Any]:
    widths = {"hidden_sizes": [16, 32, 40, 64], "decoder_hidden_size": 32}
    return {**widths, "depths": [1, 1, 1, 1]}


def _convnext(transformers: Any) -> Mapping[str, Any]:
    backbone = transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], **STAGES)
    head = {"hidden_size": 32, "use_auxiliary_head": False, "pool_scales": [1, 2]}
    return {"backbone_config": backbone, **head}


def _swin(transformers: Any) -> Mapping[str, Any]:
    backbone = transformers.SwinConfig(
        image_size=SIDE, embed_dim=12, num_heads=[1, 2, 2, 4], window_size=4, **STAGES
    )
    head = {"hidden_size": 32, "auxiliary_in_channels": 48, "pool_scales": [1, 2]}
    return {"backbone_config": backbone, **head}


def _mobilevit(_: Any) -> Mapping[str, Any]:
    necks = [8, 8, 16, 24, 32, 40, 64]
    widths = {"hidden_sizes": [32, 40, 48], "neck_hidden_sizes": necks, "aspp_out_channels": 32}
    # Of the usual 0.02, nothing of the photo is left at the end of so small a network.
    return {"image_size": SIDE, "initializer_range": 0.3, **widths}


def _mobilenetv2(_: Any) -> Mapping[str, Any]:
    return {"image_size": SIDE, "depth_multiplier": 0.35}


def _dpt(_: Any) -> Mapping[str, Any]:
    widths = {"neck_hidden_sizes": [8, 16, 24, 32], "fusion_hidden_size": 16}
    plain = {"is_hybrid": False, "add_projection": False, "backbone_out_indices": [0, 1, 2, 3]}
    return {**SMALL_VIT, **widths, **plain}


@dataclass(frozen=True)
class Network:
    """One of them.

    Attributes:
        build: Makes it.
        size: The one side of photos that its export takes; ``None`` is any.
        opset: That it is exported at.
    """

    build: Callable[[], nn.Module]
    size: int | None = None
    opset: int = 17


NETWORKS = {
    "torchvision deeplabv3_resnet50": Network(_torchvision("deeplabv3_resnet50", aux_loss=True)),
    "torchvision deeplabv3_mobilenet": Network(_torchvision("deeplabv3_mobilenet_v3_large")),
    "torchvision fcn_resnet50": Network(_torchvision("fcn_resnet50")),
    "torchvision lraspp": Network(_torchvision("lraspp_mobilenet_v3_large")),
    "smp Unet": Network(_smp("Unet")),
    "smp Unet, sigmoid": Network(_smp("Unet", "mobilenet_v2", classes=1, activation="sigmoid")),
    "smp Unet, softmax": Network(_smp("Unet", activation="softmax2d"), opset=13),
    "smp UnetPlusPlus": Network(_smp("UnetPlusPlus")),
    "smp MAnet": Network(_smp("MAnet")),
    "smp Linknet": Network(_smp("Linknet"), opset=11),
    "smp FPN": Network(_smp("FPN")),
    "smp PSPNet": Network(_smp("PSPNet", psp_use_batchnorm=False), size=96),
    "smp DeepLabV3Plus": Network(_smp("DeepLabV3Plus")),
    "smp Segformer": Network(_smp("Segformer", "mit_b0")),
    "transformers SegFormer": Network(
        _transformers("SegformerForSemanticSegmentation", _segformer)
    ),
    "transformers BEiT": Network(_transformers("BeitForSemanticSegmentation", _beit), SIDE),
    "transformers BEiT, relative": Network(
        _transformers("BeitForSemanticSegmentation", _relative_beit), SIDE
    ),
    "transformers Data2Vec": Network(
        _transformers("Data2VecVisionForSemanticSegmentation", lambda _: BEIT), SIDE
    ),
    "transformers UPerNet, ConvNeXt": Network(
        _transformers("UperNetForSemanticSegmentation", _convnext), SIDE
    ),
    "transformers UPerNet, Swin": Network(
        _transformers("UperNetForSemanticSegmentation", _swin), SIDE
    ),
    "transformers MobileViT": Network(
        _transformers("MobileViTForSemanticSegmentation", _mobilevit), SIDE
    ),
    "transformers MobileNetV2": Network(
        _transformers("MobileNetV2ForSemanticSegmentation", _mobilenetv2)
    ),
    "transformers DPT": Network(_transformers("DPTForSemanticSegmentation", _dpt), SIDE),
}


def _detr(transformers: Any) -> Mapping[str, Any]:
    backbone = transformers.ResNetConfig(
        hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], embedding_size=8, out_features=["stage4"]
    )
    sizes = {
        f"{half}_{what}": number
        for half in ("encoder", "decoder")
        for what, number in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
    }
    plain = {"use_timm_backbone": False, "use_pretrained_backbone": False}
    return {"backbone_config": backbone, "d_model": 32, "num_queries": 10, **plain, **sizes}


def _eomt(_: Any) -> Mapping[str, Any]:
    return {**SMALL_VIT, "num_blocks": 1, "num_queries": 10, "num_upscale_blocks": 2}


def _maskformer(transformers: Any) -> Mapping[str, Any]:
    backbone = transformers.SwinConfig(
        image_size=SIDE, embed_dim=12, num_heads=[1, 2, 2, 4], window_size=4, **STAGES
    )
    decoder = transformers.DetrConfig(**_detr(transformers))
    sizes = {"fpn_feature_size": 32, "mask_feature_size": 32}
    return {"backbone_config": backbone, "decoder_config": decoder, **sizes}


OTHERS = {
    "DETR": ("is a detector or instance", _transformers("DetrForObjectDetection", _detr)),
    "EoMT": ("classifies masks", _transformers("EomtForUniversalSegmentation", _eomt)),
    "MaskFormer": (
        "classifies masks",
        _transformers("MaskFormerForInstanceSegmentation", _maskformer),
    ),
    "ViT": ("is a classifier", _transformers("ViTForImageClassification", lambda _: SMALL_VIT)),
}
"""Networks of other kinds, and what is said of them."""


class _Scores(nn.Module):
    """The scores alone, as exporters of these packages keep them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor) -> Tensor:
        return scores_of(self.network(pixel_values))


def built(name: str, photos: list[NDArray[np.uint8]]) -> nn.Module:
    """One of :data:`NETWORKS`, in evaluation mode, that sees several classes in these photos."""
    torch.manual_seed(0)
    kept = NETWORKS[name]
    x = normalised(photos)
    if kept.size is not None:
        x = nn.functional.interpolate(x, (kept.size, kept.size))
    return _lively(kept.build(), x)


@torch.no_grad()
def _lively(network: nn.Module, photos: Tensor) -> nn.Module:
    """Scale the last layer so that each class has scores of mean 0 and deviation 1.

    Shape:
        ``photos`` are [N, 3, H, W], normalised.
    """
    network.eval()
    scores = scores_of(network(photos))
    if scores.shape[1] > 1 and bool((scores.sum(1) - 1).abs().max() < 1e-3):
        scores = scores.clamp_min(1e-9).log()
    heads = [
        layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d)
        and layer.out_channels == scores.shape[1]
        and "aux" not in name
    ]
    deviation, mean = torch.std_mean(scores, (0, 2, 3))
    # torchvision's lraspp adds the scores of two layers.
    last = heads[-2:] if type(network).__name__ == "LRASPP" else heads[-1:]
    for head in last:
        head.weight.div_(deviation[:, None, None, None])
        assert head.bias is not None
        head.bias.sub_(mean / len(last)).div_(deviation)
    return network


def written(name: str, photos: list[NDArray[np.uint8]], path: Path) -> Path:
    """Its export by TorchScript, which most files that one meets were made with."""
    network, kept = built(name, photos), NETWORKS[name]
    side = kept.size or 96
    axes = {0: "batch", 2: "height", 3: "width"} if kept.size is None else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Scores(network),
            (torch.zeros(1, 3, side, side),),
            str(path),
            dynamo=False,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_axes={"pixel_values": axes, "logits": axes},
            opset_version=kept.opset,
        )
    return path


def normalised(photos: list[NDArray[np.uint8]]) -> Tensor:
    """By ImageNet's mean and deviation, the first 64 rows and columns of each."""
    x = np.stack([photo[:SIDE, :SIDE] for photo in photos]).transpose(0, 3, 1, 2) / 255
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return torch.tensor((x - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))).float()
