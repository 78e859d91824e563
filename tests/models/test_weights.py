"""Published weight files load by name, whole or not at all, with every tensor accounted for."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

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


# network, layout, tensors in the file, its classifier, our key
PUBLISHED = [
    ("vgg16", layouts.torchvision_vgg16, 32, "classifier.", vgg_key),
    ("deeplab_largefov", layouts.torchvision_vgg16, 32, "classifier.", vgg_key),
    ("resnet50", layouts.torchvision_resnet50, 320, "fc.", identity),
    ("fcn8s_inceptionv2", layouts.cadene_bninception, 485, "last_linear.", inception_key),
    ("deeplabv3_xception", layouts.cadene_xception, 276, "fc.", identity),
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
