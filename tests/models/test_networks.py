"""The paper's networks against their published sizes and plain re-statements of the originals."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ppool import PPool2d
from ppool.metadata import InputPolicy, LabelClass
from ppool.models import Checkpoint, create_model, list_models, load_weights, original_pooling
from tests.models import layouts, standard
from tests.models.layouts import Shapes


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "heads", "published"),
    [
        ("vgg16", ["score"], 14_714_688),
        ("resnet50", ["score"], 23_508_032),
        # Published with a classifier of 1,000 classes: 1,248,424.
        ("squeezenet_fcn", ["score"], 1_248_424 - 513_000),
        ("deeplab_largefov", [], 20_505_429),
        # Published with a classifier of 1,000 classes: 11,295,240 and 22,855,952.
        ("fcn8s_inceptionv2", ["score3b", "score4d", "score5b"], 11_295_240 - 1_025_000),
        ("deeplabv3_xception", ["aspp", "score"], 22_855_952 - 2_049_000),
    ],
)
def test_parameter_counts_are_the_published_ones(
    name: str, heads: list[str], published: int
) -> None:
    model = create_model(name, pooling=original_pooling(name), num_classes=21)
    assert parameters(model) - sum(parameters(model.get_submodule(h)) for h in heads) == published


def test_the_branches_of_vgg16_are_as_few_as_the_paper_says() -> None:
    pools = [m for m in create_model("vgg16").modules() if isinstance(m, PPool2d)]
    assert sum(parameters(pool) for pool in pools) == 7 * 960 + 12 * 512 == 12_864
    assert 12_864 < 0.0008 * 138_357_544


@pytest.mark.parametrize("name", list_models())
def test_a_stage_is_named_by_the_path_of_its_layer(name: str) -> None:
    model = create_model(name, pooling="ppool", num_classes=2)
    pools = {path for path, module in model.named_modules() if isinstance(module, PPool2d)}
    assert pools == set(original_pooling(name))


def test_one_stage_at_a_time_can_be_replaced() -> None:
    model = create_model("vgg16", pooling=original_pooling("vgg16") | {"pool3": "ppool"})
    pools = [path for path, module in model.named_modules() if isinstance(module, PPool2d)]
    assert pools == ["pool3"]


def randomised(name: str, pooling: str) -> nn.Module:
    """The network in evaluation mode, its running statistics off their start."""
    torch.manual_seed(3)
    model = create_model(name, pooling=pooling, num_classes=4).eval()
    for key, tensor in model.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.2, 0.6)
    return model


# network, pooling, layout of the published weights, their number, the standard network
STANDARD: list[tuple[str, str, Callable[[], Shapes], int, Callable[..., Tensor]]] = [
    ("vgg16", "max", layouts.torchvision_vgg16, 138_357_544, standard.vgg16),
    ("squeezenet_fcn", "max", layouts.released_squeezenet, 1_248_424, standard.squeezenet),
    ("resnet50", "strided_conv", layouts.torchvision_resnet50, 25_557_032, standard.resnet50),
    (
        "resnet50",
        "max",
        layouts.torchvision_resnet50,
        25_557_032,
        partial(standard.resnet50, pooled=True),
    ),
    (
        "fcn8s_inceptionv2",
        "original",
        layouts.cadene_bninception,
        11_295_240,
        standard.bninception,
    ),
    ("deeplabv3_xception", "original", layouts.cadene_xception, 22_855_952, standard.xception),
]


@pytest.mark.parametrize(("name", "pooling", "layout", "published", "plain"), STANDARD)
@torch.no_grad()
def test_published_weights_give_the_features_of_the_standard_network(
    name: str,
    pooling: str,
    layout: Callable[[], Shapes],
    published: int,
    plain: Callable[..., Tensor],
    tmp_path: Path,
) -> None:
    counted = {k: s for k, s in layout().items() if "running" not in k and "batches" not in k}
    assert sum(math.prod(shape) for shape in counted.values()) == published
    heads = ("classifier", "fc", "last_linear", "conv_final")
    weights = {k: s for k, s in layout().items() if not k.startswith(heads)}
    state = standard.plausible_weights(weights)
    torch.save(state, tmp_path / "published.pth")
    model = create_model(name, pooling=original_pooling(name) if pooling == "original" else pooling)
    load_weights(model, tmp_path / "published.pth")

    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    features = model.eval().features(x)  # type: ignore[operator]
    features = features[-1] if isinstance(features, tuple) else features
    expected = plain(state, x)
    assert 0.01 < float(expected.std()) < torch.inf
    assert torch.allclose(features, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def largest_shortfall(elements: int, alpha: float) -> float:
    """The most by which P-pooling falls short of the maximum: all other elements alike."""
    ratio = np.linspace(0, 1, 100_001)
    others = (elements - 1) * ratio**alpha
    return float((others * (1 - ratio) / (1 + others)).max())


@torch.no_grad()
def test_replaced_max_poolings_start_within_the_bound_of_alpha(tmp_path: Path) -> None:
    pretrained, x = randomised("vgg16", "max"), torch.randn(1, 3, 64, 64)
    torch.save(pretrained.state_dict(), tmp_path / "pretrained.pt")
    model = create_model("vgg16", num_classes=4).eval()
    report = load_weights(model, tmp_path / "pretrained.pt")
    assert {key.split(".")[0] for key in report.missing} == set(original_pooling("vgg16"))

    assert largest_shortfall(4, 20.0) < 0.03
    for stage in original_pooling("vgg16"):
        bound = largest_shortfall(9 if stage == "pool5" else 4, 20.0)
        seen: list[Tensor] = []
        layer = pretrained.get_submodule(stage)
        handle = layer.register_forward_hook(
            lambda _, given, made, seen=seen: seen.extend((*given, made))
        )
        pretrained(x)
        handle.remove()
        pooled = model.get_submodule(stage)(seen[0])
        assert (pooled <= seen[1] * (1 + 1e-6)).all()
        assert (pooled >= seen[1] * (1 - bound - 1e-6)).all()

    for pool in model.modules():
        if isinstance(pool, PPool2d):
            pool.alpha_max = 1e6
            pool.point_bias.fill_(1e6)
    assert torch.allclose(model(x), pretrained(x), rtol=1e-4, atol=1e-4 * pretrained(x).abs().max())


@torch.no_grad()
def test_replaced_average_poolings_start_unchanged() -> None:
    name = "fcn8s_inceptionv2"
    averages = [stage for stage, pool in original_pooling(name).items() if pool == "average"]
    assert len(averages) == 7
    torch.manual_seed(0)
    pretrained = create_model(name, pooling=original_pooling(name)).eval()
    model = create_model(name, pooling=original_pooling(name) | dict.fromkeys(averages, "ppool"))
    model.load_state_dict(pretrained.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    expected = pretrained(x)
    assert torch.allclose(model.eval()(x), expected, rtol=1e-4, atol=1e-5 * expected.abs().max())


def test_a_checkpoint_rebuilds_a_mixed_network() -> None:
    pooling = original_pooling("fcn8s_inceptionv2") | {"pool1": "ppool", "pool2": "dpp"}
    model = create_model("fcn8s_inceptionv2", pooling=pooling, num_classes=2).eval()
    checkpoint = Checkpoint(
        network="fcn8s_inceptionv2",
        pooling=pooling,
        classes=(LabelClass(0, "paper", "#ffffff"), LabelClass(1, "ink", "#000080")),
        input=InputPolicy(256, 32),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        state_dict=model.state_dict(),
    )
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(checkpoint.build()(x), model(x))
