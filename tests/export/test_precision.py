"""Exported files in smaller numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from export import lower_precision, score
from export._cli import app
from ppool.runtime import make_session
from service.models import shipped_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("precision") / "model.onnx"
    path.write_bytes(shipped_model().read_bytes())
    return path


@pytest.fixture(scope="module")
def data(model: Path) -> Path:
    """Photos of odd sizes, labelled by the model itself, but for an ignored corner."""
    folder, rng = model.parent / "data", np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index in range(3):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
        pixels = np.asarray(coarse.resize((90, 70), Image.Resampling.BICUBIC))
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        padded = np.pad(pixels, ((0, 10), (0, 6), (0, 0)), "edge")
        mask = make_session(model).run(["mask"], {"image": padded[None]})[0][0, :70, :90].copy()
        mask[:5, :5] = 255
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
    return folder


def test_a_model_agrees_with_its_own_labels(model: Path, data: Path) -> None:
    assert score(model, data).mean_iou == 1.0


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_numbers_give_nearly_the_same_mask(
    precision: str, model: Path, data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "small.onnx"
    command = ["precision", str(model), "-o", str(path), "--precision", precision]
    command += ["--calibration", str(data / "images"), "--validation", str(data)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "mean IoU" in result.output
    assert score(path, data).mean_iou > 0.8
    assert path.stat().st_size < 0.6 * model.stat().st_size
    assert make_session(path).metadata == make_session(model).metadata


def test_pooling_is_left_as_it_is_by_int8(model: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    lower_precision(model, path, "int8", calibration=data / "images")
    graph = onnx.load(path).graph
    made = {output: node.op_type for node in graph.node for output in node.output}
    kept = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "PPoolUnit":
            assert all(name in kept for name in node.input[1:])
    assert "QLinearConv" not in made.values()
    assert list(made.values()).count("QuantizeLinear") > 0


def test_int8_without_images_to_calibrate_with_is_refused(model: Path, tmp_path: Path) -> None:
    command = ["precision", str(model), "-o", str(tmp_path / "x"), "--precision", "int8"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "--calibration: expected a folder of images, got none" in result.stderr


def test_a_missing_mask_is_named(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes((data / "images" / "0.png").read_bytes())
    with pytest.raises(ValueError, match=r"0\.png: expected the mask"):
        score(model, tmp_path)
