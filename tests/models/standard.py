"""The trunks of the published networks, re-stated as plain functions of their published weights."""

from collections.abc import Mapping
from itertools import count

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.models.layouts import Shapes

State = Mapping[str, Tensor]


def plausible_weights(shapes: Shapes) -> dict[str, Tensor]:
    """Random tensors that neither vanish nor overflow through any depth."""
    generator = torch.Generator().manual_seed(5)
    state = {}
    for key, shape in shapes.items():
        kind = key.rpartition(".")[2]
        normal = torch.randn(shape, generator=generator)
        if len(shape) == 4:
            state[key] = normal * (2 / torch.Size(shape[1:]).numel()) ** 0.5
        elif kind == "num_batches_tracked":
            state[key] = torch.zeros(shape, dtype=torch.int64)
        else:
            centre = 1.0 if kind in {"weight", "running_var"} else 0.1
            state[key] = centre + 0.05 * normal
    return state


def _batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    kinds = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{name}.{kind}"] for kind in kinds))


def vgg16(state: State, x: Tensor) -> Tensor:
    """Simonyan and Zisserman's configuration D; the last pooling at stride 1 (Section 4.1)."""
    layer = count()
    for stage, depth in enumerate((2, 2, 3, 3, 3), 1):
        for _ in range(depth):
            name = f"features.{next(layer)}"
            next(layer)  # the ReLU
            x = F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))
        next(layer)  # the pooling
        x = F.max_pool2d(x, 2, 2) if stage < 5 else F.max_pool2d(x, 3, 1, 1)
    return x


def squeezenet(state: State, x: Tensor) -> Tensor:
    """Iandola et al.'s network as released, for BGR in 0..255 less its mean, at stride 8.

    ``x`` is RGB, normalised as torchvision has it; what is padded is what ours pads.
    """
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    rgb = 255 * (x * std[:, None, None] + mean[:, None, None])
    caffe = rgb.flip(1) - torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    # Ours pads with torchvision's zeros, the mean image.
    border = (255 * mean).flip(0) - torch.tensor([104.0, 117.0, 123.0])
    padded = F.pad(caffe - border[:, None, None], (3, 3, 3, 3)) + border[:, None, None]

    def conv(name: str, x: Tensor, **options: int) -> Tensor:
        return F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options))

    x = F.max_pool2d(conv("conv1", padded, stride=2), 3, 2, 1)
    for fire in range(2, 10):
        x = conv(f"fire{fire}/conv1x1_1", x)
        wide = {"padding": 2, "dilation": 2} if fire == 9 else {"padding": 1}
        x = torch.cat(
            [conv(f"fire{fire}/conv1x1_2", x), conv(f"fire{fire}/conv3x3_2", x, **wide)], 1
        )
        if fire == 4:
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        elif fire == 8:
            x = F.max_pool2d(x, 3, 1, 1)
    return x


def resnet50(state: State, x: Tensor, *, pooled: bool = False) -> Tensor:
    """He et al.'s network as torchvision has it, or with max poolings for its strides."""

    def conv_bn(x: Tensor, conv: str, bn: str, stride: int = 1, padding: int = 0) -> Tensor:
        return _batch_norm(state, bn, F.conv2d(x, state[f"{conv}.weight"], None, stride, padding))

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
    return x


def bninception(state: State, x: Tensor) -> Tensor:
    """Ioffe and Szegedy's network as Cadene has it, but for the padding of its averages.

    ``x`` is RGB, as ours takes it; padding counts in Cadene's average poolings and not in ours.
    """

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        y = F.conv2d(x, weight, state[f"{name}.bias"], stride, weight.shape[-1] // 2)
        return F.relu(_batch_norm(state, f"{name}_bn", y))

    x = conv("conv1_7x7_s2", x.flip(1), 2)
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    x = conv("conv2_3x3", conv("conv2_3x3_reduce", x))
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    for block in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        at, stride = f"inception_{block}", 2 if block in {"3c", "4e"} else 1
        single = conv(f"{at}_3x3", conv(f"{at}_3x3_reduce", x), stride)
        double = conv(f"{at}_double_3x3_1", conv(f"{at}_double_3x3_reduce", x))
        double = conv(f"{at}_double_3x3_2", double, stride)
        if stride == 2:
            x = torch.cat([single, double, F.max_pool2d(x, 3, 2, ceil_mode=True)], 1)
            continue
        if block == "5b":
            pooled = F.max_pool2d(x, 3, 1, 1)
        else:
            pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        pooled = conv(f"{at}_pool_proj", pooled)
        x = torch.cat([conv(f"{at}_1x1", x), single, double, pooled], 1)
    return x


def xception(state: State, x: Tensor) -> Tensor:
    """Chollet's network as Cadene has it, at stride 16: dilated 2, 4, 8 from ``block12`` on."""

    def separable(name: str, x: Tensor, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.conv1.weight"]
        x = F.conv2d(x, weight, None, 1, dilation, dilation, groups=weight.shape[0])
        return F.conv2d(x, state[f"{name}.pointwise.weight"])

    x = F.relu(_batch_norm(state, "bn1", F.conv2d(x, state["conv1.weight"], None, 2)))
    x = F.relu(_batch_norm(state, "bn2", F.conv2d(x, state["conv2.weight"])))
    for number in range(1, 13):
        block, y = f"block{number}", x
        index = 0
        if number > 1:
            y, index = F.relu(y), 1
        for repeat in range(2 if f"{block}.skip.weight" in state else 3):
            if repeat:
                y, index = F.relu(y), index + 1
            y = separable(f"{block}.rep.{index}", y, 2 if number == 12 else 1)
            y, index = _batch_norm(state, f"{block}.rep.{index + 1}", y), index + 2
        if f"{block}.skip.weight" in state:
            stride = 1 if number == 12 else 2
            y = F.max_pool2d(y, 3, stride, 1)
            x = _batch_norm(
                state, f"{block}.skipbn", F.conv2d(x, state[f"{block}.skip.weight"], None, stride)
            )
        x = x + y
    x = F.relu(_batch_norm(state, "bn3", separable("conv3", x, 4)))
    return F.relu(_batch_norm(state, "bn4", separable("conv4", x, 8)))
