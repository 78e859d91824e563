"""The paper's networks against their published sizes and plain re-statements of the originals."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import Checkpoint, create_model, list_models, load_weights, original_pooling
from ppool import PPool2d
from ppool.metadata import InputPolicy, LabelClass


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "heads", "published"),
    [
        ("vgg16", ["score"], 14_714_688),
        ("resnet50", ["score"], 23_508_032),
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


def test_the_branches_of_vgg16_are_less_than_the_paper_says() -> None:
    pools = [m for m in create_model("vgg16").modules() if isinstance(m, PPool2d)]
    assert sum(parameters(pool) for pool in pools) == 10_304
    assert 10_304 < 0.0008 * 14_714_688


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


def plain_vgg16(state: dict[str, Tensor], x: Tensor) -> Tensor:
    for stage, depth in enumerate((2, 2, 3, 3, 3), 1):
        for number in range(1, depth + 1):
            name = f"conv{stage}_{number}"
            x = F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))
        x = F.max_pool2d(x, 2, 2 if stage < 5 else 1)
    return F.conv2d(x, state["score.weight"], state["score.bias"])


def plain_resnet50(state: dict[str, Tensor], x: Tensor, *, pooled: bool) -> Tensor:
    """ResNet-50 with its strides where torchvision has them, or with max poolings before them."""

    def conv_bn(x: Tensor, conv: str, bn: str, stride: int = 1, padding: int = 0) -> Tensor:
        y = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=padding)
        kinds = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(y, *(state[f"{bn}.{kind}"] for kind in kinds))

    def halve(x: Tensor) -> tuple[Tensor, int]:
        return (F.max_pool2d(x, 3, 2, 1), 1) if pooled else (x, 2)

    x = F.relu(conv_bn(x, "conv1", "bn1", stride=1 if pooled else 2, padding=3))
    x = F.max_pool2d(halve(x)[0], 3, 2, 1)
    for layer, blocks in enumerate((3, 4, 6, 3), 1):
        x, stride = halve(x) if layer > 1 else (x, 1)
        for block in range(blocks):
            at, step = f"layer{layer}.{block}", stride if block == 0 else 1
            y = F.relu(conv_bn(x, f"{at}.conv1", f"{at}.bn1"))
            y = F.relu(conv_bn(y, f"{at}.conv2", f"{at}.bn2", stride=step, padding=1))
            y = conv_bn(y, f"{at}.conv3", f"{at}.bn3")
            if block == 0:
                x = conv_bn(x, f"{at}.downsample.0", f"{at}.downsample.1", stride=step)
            x = F.relu(x + y)
    return F.conv2d(x, state["score.weight"], state["score.bias"])


@pytest.mark.parametrize(
    ("name", "pooling", "plain"),
    [
        ("vgg16", "max", plain_vgg16),
        ("resnet50", "max", lambda state, x: plain_resnet50(state, x, pooled=True)),
        ("resnet50", "strided_conv", lambda state, x: plain_resnet50(state, x, pooled=False)),
    ],
)
@torch.no_grad()
def test_the_same_weights_give_the_features_of_the_standard_network(
    name: str, pooling: str, plain: Callable[[dict[str, Tensor], Tensor], Tensor]
) -> None:
    model, x = randomised(name, pooling), torch.randn(1, 3, 64, 64)
    expected = plain(dict(model.state_dict()), x)
    assert torch.allclose(model(x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


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

    bound = largest_shortfall(4, 20.0)
    assert bound < 0.03
    for stage in original_pooling("vgg16"):
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
