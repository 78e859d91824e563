"""Published weight files load by name, whole or not at all, with every tensor accounted for."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ppool.models import create_model, load_weights
from tests.models import layouts


def identity(key: str) -> str:
    return key


def vgg_key(key: str) -> str:
    indices = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    places = dict(zip(indices, "1122333444555", strict=True))
    index = int(key.split(".")[1])
    stage = places[index]
    number = [i for i, s in places.items() if s == stage].index(index) + 1
    return f"conv{stage}_{number}.{key.split('.')[2]}"


def inception_key(key: str) -> str:
    layer, kind = key.split(".")
    part = "bn" if layer.endswith("_bn") else "conv"
    layer = layer.removesuffix("_bn")
    if layer.startswith("inception"):
        block, layer = layer[:12], layer[13:]
        layer = f"{block}.{'conv_' if layer[0] in '13' else ''}{layer}"
    return f"{layer}.{part}.{kind}"


def squeezenet_key(key: str) -> str:
    _, index, *rest = key.split(".")
    fires = dict(zip((3, 4, 5, 7, 8, 9, 10, 12), range(2, 10), strict=True))
    return ".".join([f"fire{fires[int(index)]}" if index != "0" else "conv1", *rest])


# network, layout, tensors in the file, its classifier, our key
PUBLISHED = [
    ("vgg16", layouts.torchvision_vgg16, 32, "classifier.", vgg_key),
    ("deeplab_largefov", layouts.torchvision_vgg16, 32, "classifier.", vgg_key),
    ("resnet50", layouts.torchvision_resnet50, 320, "fc.", identity),
    ("fcn8s_inceptionv2", layouts.cadene_bninception, 485, "last_linear.", inception_key),
    ("deeplabv3_xception", layouts.cadene_xception, 276, "fc.", identity),
    ("squeezenet_fcn", layouts.torchvision_squeezenet, 52, "classifier.", squeezenet_key),
]


@pytest.mark.parametrize(("name", "layout", "count", "head", "our_key"), PUBLISHED)
def test_a_published_file_fills_the_whole_trunk(
    name: str,
    layout: Callable[[], layouts.Shapes],
    count: int,
    head: str,
    our_key: Callable[[str], str],
    tmp_path: Path,
) -> None:
    tensors = layouts.random_tensors(layout())
    assert len(tensors) == count
    torch.save(tensors, tmp_path / "published.pth")
    model = create_model(name, num_classes=3)
    report = load_weights(model, tmp_path / "published.pth")

    trunk = {our_key(key): t for key, t in tensors.items() if not key.startswith(head)}
    assert set(report.loaded) == set(trunk)
    state = model.state_dict()
    wrong = [key for key, t in trunk.items() if not torch.equal(state[key], t.to(state[key].dtype))]
    assert not wrong
    assert sorted(report.unexpected) == sorted(key for key in tensors if key.startswith(head))
    assert set(report.missing) == set(state) - set(trunk)
    assert (report.mismatched, report.reshaped) == ({}, {})


def resnet_file(path: Path, changes: dict[str, Tensor | None]) -> Path:
    tensors = {**layouts.random_tensors(layouts.torchvision_resnet50()), **changes}
    torch.save({key: t for key, t in tensors.items() if t is not None}, path)
    return path


def test_bninception_turns_from_bgr_to_rgb(tmp_path: Path) -> None:
    tensors = layouts.random_tensors(layouts.cadene_bninception())
    tensors["conv1_7x7_s2.weight"] = torch.rand(64, 3, 7, 7)
    torch.save(tensors, tmp_path / "bninception.pth")
    model = create_model("fcn8s_inceptionv2", pooling="max", weights=tmp_path / "bninception.pth")
    ours = model.get_parameter("conv1_7x7_s2.conv.weight")
    assert torch.equal(ours[:, 0], tensors["conv1_7x7_s2.weight"][:, 2])


def test_old_files_without_counters_and_with_rows_for_vectors_load(tmp_path: Path) -> None:
    counters = {
        key: None for key in layouts.torchvision_resnet50() if key.endswith("num_batches_tracked")
    }
    path = resnet_file(tmp_path / "old.pth", {**counters, "bn1.weight": torch.rand(1, 64)})
    report = load_weights(create_model("resnet50", pooling="max"), path)
    assert set(report.missing) == {*counters, "score.weight", "score.bias"}
    assert report.reshaped == {"bn1.weight": "[1, 64] to [64]"}
    assert "reshaped    bn1.weight: [1, 64] to [64]" in str(report)


@pytest.mark.parametrize("change", [None, torch.zeros(64, 3, 3, 3)])
def test_an_incomplete_trunk_is_refused_and_nothing_is_loaded(
    change: Tensor | None, tmp_path: Path
) -> None:
    path = resnet_file(tmp_path / "partial.pth", {"conv1.weight": change})
    model = create_model("resnet50", pooling="max")
    before = {key: t.clone() for key, t in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"every tensor of the trunk of ResNet50.* conv1\.weight"):
        load_weights(model, path)
    assert all(torch.equal(before[key], t) for key, t in model.state_dict().items())


def test_another_class_count_keeps_the_trunk_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = create_model("fcn8s_inceptionv2", num_classes=5)
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "trained.pt")
    with caplog.at_level(logging.WARNING):
        model = create_model("fcn8s_inceptionv2", num_classes=7, weights=tmp_path / "trained.pt")
    assert "score3b.weight: expected [7, 320, 1, 1], got [5, 320, 1, 1]; not used" in caplog.text
    state = model.state_dict()
    assert all(
        torch.equal(state[key], t)
        for key, t in trained.state_dict().items()
        if not key.startswith("score")
    )


def hdf5(path: Path, arrays: dict[str, Tensor]) -> Path:
    with h5py.File(path, "w") as file:
        for key, tensor in arrays.items():
            file[key] = tensor.numpy()
    return path


def caffe(image: Tensor) -> Tensor:
    """RGB in [0, 1] as Caffe's and Keras' VGG-16 take it: BGR in 0..255 less the mean."""
    return 255 * image.flip(1) - torch.tensor([103.939, 116.779, 123.68])[:, None, None]


def test_vgg16_from_kerass_hdf5_is_the_network_that_keras_trained(tmp_path: Path) -> None:
    arrays = layouts.random_tensors(layouts.keras_vgg16())
    path = hdf5(tmp_path / "hed.weights.h5", arrays)
    model = create_model("vgg16", pooling="max", num_classes=2)
    report = load_weights(model, path)
    assert len(report.loaded) == 26
    assert report.unexpected == ["dsn1/vars/0", "dsn1/vars/1"]
    assert report.missing == ["score.weight", "score.bias"]
    state = model.state_dict()
    for ours, theirs in (
        ("conv2_1", "block2/layers/conv2d"),
        ("conv5_3", "block5/layers/conv2d_2"),
    ):
        expected = arrays[f"{theirs}/vars/0"].numpy().transpose(3, 2, 0, 1)
        np.testing.assert_array_equal(state[f"{ours}.weight"], expected)
        assert torch.equal(state[f"{ours}.bias"], arrays[f"{theirs}/vars/1"])
    # Away from the border, where Caffe pads with its mean and torchvision with its own.
    image = torch.rand(1, 3, 9, 9)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    found = model.get_submodule("conv1_1")((image - mean[:, None, None]) / std[:, None, None])
    kernel = arrays["block1/layers/conv2d/vars/0"].permute(3, 2, 0, 1)
    bias = arrays["block1/layers/conv2d/vars/1"]
    expected = F.conv2d(caffe(image), kernel, bias)
    torch.testing.assert_close(found[..., 1:-1, 1:-1], expected, rtol=1e-4, atol=1e-2)


def test_kerass_own_file_of_vgg16_loads_by_the_names_of_its_layers(tmp_path: Path) -> None:
    arrays = {}
    for key, tensor in layouts.random_tensors(layouts.keras_vgg16()).items():
        if match := re.fullmatch(r"block(\d)/layers/conv2d(?:_(\d))?/vars/(\d)", key):
            block, index, kind = match.groups()
            layer = f"block{block}_conv{int(index or 0) + 1}"
            arrays[f"{layer}/{layer}_{'Wb'[int(kind)]}_1:0"] = tensor
    model = create_model("vgg16", pooling="max", weights=hdf5(tmp_path / "vgg16.h5", arrays))
    expected = arrays["block4_conv2/block4_conv2_W_1:0"].numpy().transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(model.get_parameter("conv4_2.weight").detach(), expected)


def test_squeezenet_from_npz_fills_the_whole_trunk_and_names_the_rest(tmp_path: Path) -> None:
    arrays = layouts.random_tensors(layouts.released_squeezenet())
    np.savez(tmp_path / "squeezenet.npz", **{k: t.numpy() for k, t in arrays.items()})
    model = create_model("squeezenet_fcn", num_classes=2)
    report = load_weights(model, tmp_path / "squeezenet.npz")
    assert len(report.loaded) == 50
    assert report.unexpected == ["conv_final.weight", "conv_final.bias"]
    assert {key.split(".")[0] for key in report.missing} == {"pool1", "pool4", "pool8", "score"}
    ours = model.state_dict()["fire9.expand3x3.weight"]
    assert torch.equal(ours, arrays["fire9/conv3x3_2.weight"])
    # What training saved is not converted a second time.
    torch.save(model.state_dict(), tmp_path / "own.pt")
    again = create_model("squeezenet_fcn", num_classes=2, weights=tmp_path / "own.pt")
    assert torch.equal(again.get_parameter("conv1.weight"), model.get_parameter("conv1.weight"))


@pytest.mark.parametrize("name", ["weights.npz", "weights.h5"])
def test_archives_of_another_kind_are_named(name: str, tmp_path: Path) -> None:
    path, model = tmp_path / name, create_model("squeezenet_fcn", num_classes=2)
    with pytest.raises(FileNotFoundError):
        load_weights(model, path)
    for content in (b"", b"no archive", b"PK\x03\x04 cut off", b"\x89HDF\r\n\x1a\n cut off"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}: expected (arrays written|an HDF5 file)"):
            load_weights(model, path)
    if name.endswith("npz"):
        np.savez(path, **{"conv1.weight": np.asarray(["text"]), "x": np.asarray([{}], object)})
        with pytest.raises(ValueError, match=r"expected arrays written by numpy\.savez"):
            load_weights(model, path)


def test_own_weights_load_without_a_remark(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = create_model("unet_small", num_classes=3)
    torch.save(trained.state_dict(), tmp_path / "trained.pt")
    load_weights(create_model("unet_small", num_classes=3), tmp_path / "trained.pt")
    assert not caplog.records


def test_other_files_are_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    model = create_model("unet_small", num_classes=3)
    with pytest.raises(FileNotFoundError):
        load_weights(model, path)
    path.write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"weights\.pth: expected a state dict"):
        load_weights(model, path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="expected a state dict, got list"):
        load_weights(model, path)
