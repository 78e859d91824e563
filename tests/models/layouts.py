"""State dicts in the layouts of published classification weights: names and shapes, re-stated."""

from itertools import pairwise

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def _batch_norm(name: str, channels: int) -> Shapes:
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{kind}": (channels,) for kind in kinds} | {f"{name}.num_batches_tracked": ()}


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def torchvision_vgg16() -> Shapes:
    shapes: Shapes = {}
    index, inputs = 0, 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if width:
            shapes[f"features.{index}.weight"] = (width, inputs, 3, 3)
            shapes[f"features.{index}.bias"] = (width,)
            inputs = width
        index += 2 if width else 1
    shapes |= _linear("classifier.0", 25088, 4096) | _linear("classifier.3", 4096, 4096)
    return shapes | _linear("classifier.6", 4096, 1000)


def keras_vgg16() -> Shapes:
    """Keras 3's HDF5 of five blocks, each a ``Sequential``, with axes as Keras has them."""
    shapes: Shapes = {}
    inputs = 3
    for block, (depth, width) in enumerate(
        zip((2, 2, 3, 3, 3), (64, 128, 256, 512, 512), strict=True), 1
    ):
        for index in range(depth):
            layer = f"block{block}/layers/conv2d{f'_{index}' if index else ''}/vars"
            shapes |= {f"{layer}/0": (3, 3, inputs, width), f"{layer}/1": (width,)}
            inputs = width
    return shapes | {"dsn1/vars/0": (1, 1, 64, 1), "dsn1/vars/1": (1,)}


FIRES = {2: (96, 16, 64), 3: (128, 16, 64), 4: (128, 32, 128), 5: (256, 32, 128),
         6: (256, 48, 192), 7: (384, 48, 192), 8: (384, 64, 256), 9: (512, 64, 256)}  # fmt: skip


def released_squeezenet() -> Shapes:
    """SqueezeNet v1.0 with Caffe's names."""
    shapes: Shapes = {"conv1.weight": (96, 3, 7, 7), "conv1.bias": (96,)}
    for fire, (inputs, squeezed, expanded) in FIRES.items():
        for layer, shape in (
            ("conv1x1_1", (squeezed, inputs, 1, 1)),
            ("conv1x1_2", (expanded, squeezed, 1, 1)),
            ("conv3x3_2", (expanded, squeezed, 3, 3)),
        ):
            shapes[f"fire{fire}/{layer}.weight"] = shape
            shapes[f"fire{fire}/{layer}.bias"] = shape[:1]
    return shapes | {"conv_final.weight": (1000, 512, 1, 1), "conv_final.bias": (1000,)}


def torchvision_squeezenet() -> Shapes:
    """Torchvision's ``squeezenet1_0``."""
    places = dict(zip(FIRES, (3, 4, 5, 7, 8, 9, 10, 12), strict=True))
    layers = {"conv1x1_1": "squeeze", "conv1x1_2": "expand1x1", "conv3x3_2": "expand3x3"}
    shapes: Shapes = {}
    for key, shape in released_squeezenet().items():
        layer, kind = key.split(".")
        if layer == "conv1":
            shapes[f"features.0.{kind}"] = shape
        elif layer == "conv_final":
            shapes[f"classifier.1.{kind}"] = shape
        else:
            fire, conv = layer.split("/")
            shapes[f"features.{places[int(fire[4:])]}.{layers[conv]}.{kind}"] = shape
    return shapes


def torchvision_resnet50() -> Shapes:
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7), **_batch_norm("bn1", 64)}
    inputs = 64
    for layer, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            for number, shape in enumerate(
                ((width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)), 1
            ):
                shapes[f"{at}.conv{number}.weight"] = shape
                shapes |= _batch_norm(f"{at}.bn{number}", shape[0])
            if block == 0:
                shapes[f"{at}.downsample.0.weight"] = (4 * width, inputs, 1, 1)
                shapes |= _batch_norm(f"{at}.downsample.1", 4 * width)
            inputs = 4 * width
    return shapes | _linear("fc", 2048, 1000)


def cadene_bninception() -> Shapes:
    shapes: Shapes = {}

    def conv(name: str, inputs: int, outputs: int, kernel_size: int) -> int:
        shapes[f"{name}.weight"] = (outputs, inputs, kernel_size, kernel_size)
        shapes[f"{name}.bias"] = (outputs,)
        shapes.update(_batch_norm(f"{name}_bn", outputs))
        return outputs

    conv("conv1_7x7_s2", 3, 64, 7)
    conv("conv2_3x3_reduce", 64, 64, 1)
    inputs = conv("conv2_3x3", 64, 192, 3)
    for block, single, reduce, outer, double_reduce, double, projection in (
        ("3a", 64, 64, 64, 64, 96, 32),
        ("3b", 64, 64, 96, 64, 96, 64),
        ("3c", 0, 128, 160, 64, 96, 0),
        ("4a", 224, 64, 96, 96, 128, 128),
        ("4b", 192, 96, 128, 96, 128, 128),
        ("4c", 160, 128, 160, 128, 160, 128),
        ("4d", 96, 128, 192, 160, 192, 128),
        ("4e", 0, 128, 192, 192, 256, 0),
        ("5a", 352, 192, 320, 160, 224, 128),
        ("5b", 352, 192, 320, 192, 224, 128),
    ):
        name = f"inception_{block}"
        outputs = outer + double
        if single:
            outputs += conv(f"{name}_1x1", inputs, single, 1)
        conv(f"{name}_3x3_reduce", inputs, reduce, 1)
        conv(f"{name}_3x3", reduce, outer, 3)
        conv(f"{name}_double_3x3_reduce", inputs, double_reduce, 1)
        conv(f"{name}_double_3x3_1", double_reduce, double, 3)
        conv(f"{name}_double_3x3_2", double, double, 3)
        outputs += conv(f"{name}_pool_proj", inputs, projection, 1) if projection else inputs
        inputs = outputs
    return shapes | _linear("last_linear", inputs, 1000)


def cadene_xception() -> Shapes:
    shapes: Shapes = {"conv1.weight": (32, 3, 3, 3), **_batch_norm("bn1", 32)}
    shapes |= {"conv2.weight": (64, 32, 3, 3), **_batch_norm("bn2", 64)}

    def separable(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.conv1.weight"] = (inputs, 1, 3, 3)
        shapes[f"{name}.pointwise.weight"] = (outputs, inputs, 1, 1)

    widths = {1: (64, 128, 128), 2: (128, 256, 256), 3: (256, 728, 728), 12: (728, 728, 1024)}
    for number in range(1, 13):
        channels = widths.get(number, (728,) * 4)
        index = 0 if number == 1 else 1  # a ReLU comes first but for block 1
        for inputs, outputs in pairwise(channels):
            separable(f"block{number}.rep.{index}", inputs, outputs)
            shapes.update(_batch_norm(f"block{number}.rep.{index + 1}", outputs))
            index += 3
        if number in widths:
            shapes[f"block{number}.skip.weight"] = (channels[-1], channels[0], 1, 1)
            shapes.update(_batch_norm(f"block{number}.skipbn", channels[-1]))
    for number, inputs, outputs in ((3, 1024, 1536), (4, 1536, 2048)):
        separable(f"conv{number}", inputs, outputs)
        shapes.update(_batch_norm(f"bn{number}", outputs))
    return shapes | _linear("fc", 2048, 1000)


def random_tensors(shapes: Shapes) -> dict[str, Tensor]:
    """A value of its own for each tensor, repeated without taking space in the file."""
    generator = torch.Generator().manual_seed(0)
    return {key: torch.rand((), generator=generator).expand(shape) for key, shape in shapes.items()}
