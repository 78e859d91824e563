"""Exported files in smaller numbers."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from typer.testing import CliRunner

from ppool.export import Adoption, Normalisation, adopt_model, lower_precision, score
from ppool.export._cli import app
from ppool.metadata import CONVERTED
from ppool.reference import resize_argmax_reference
from ppool.runtime import LOGITS, make_session
from ppool.service.models import shipped_model

PHOTO = Path(__file__).parents[2] / "ppool" / "service" / "playground" / "notes.jpg"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("precision") / "model.onnx"
    path.write_bytes(shipped_model().read_bytes())
    return path


@pytest.fixture(scope="module")
def data(model: Path) -> Path:
    """Pieces of a photo, of odd sizes, labelled by the model itself, but for an ignored corner."""
    folder = model.parent / "data"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    with Image.open(PHOTO) as photo:
        pieces = [photo.crop((left, 200, left + 90, 270)) for left in (100, 300, 500)]
    for index, piece in enumerate(pieces):
        piece.save(folder / "images" / f"{index}.png")
        padded = np.pad(np.asarray(piece), ((0, 26), (0, 6), (0, 0)), "edge")
        mask = make_session(model).run(["mask"], {"image": padded[None]})[0][0, :70, :90].copy()
        mask[:5, :5] = 255
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def int8(model: Path, data: Path) -> Path:
    path = model.parent / "int8.onnx"
    lower_precision(model, path, "int8", calibration=data / "images")
    return path


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
    about, said = make_session(path).metadata, dict(make_session(path).metadata.training)
    assert said.pop(CONVERTED) == {
        "precision": precision,
        "of": hashlib.sha256(model.read_bytes()).hexdigest(),
        "images": 3,
        "mean_iou": score(path, data).mean_iou,
        "mean_iou_before": 1.0,
    }
    assert replace(about, training=said) == make_session(model).metadata


def test_pooling_is_left_as_it_is_by_int8(int8: Path) -> None:
    graph = onnx.load(int8).graph
    kept = {tensor.name for tensor in graph.initializer}
    units = [node for node in graph.node if node.op_type == "PPoolUnit"]
    assert len(units) == 5
    assert all(name in kept for node in units for name in node.input[1:])


def test_every_convolution_of_the_network_but_that_of_the_image_runs_in_int8(
    int8: Path, tmp_path: Path
) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(int8, options, providers=["CPUExecutionProvider"])
    run = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    # Two more are behind the network: steps between greys, and what moves which class.
    assert (run["Conv"] + run["FusedConv"], run["QLinearConv"]) == (3, 22)


def test_what_is_behind_the_network_stays_in_float32(int8: Path) -> None:
    graph = onnx.load(int8).graph
    reached = {name for node in graph.node if node.op_type == "Softmax" for name in node.output}
    for node in graph.node:
        if reached.intersection(node.input):
            assert node.op_type != "QuantizeLinear", node.name
            reached.update(node.output)
    assert len(reached) > 20


@pytest.mark.parametrize("native", [False, True])
def test_an_int8_model_shuffles_labels_to_where_its_logits_are(int8: Path, native: bool) -> None:
    with Image.open(PHOTO) as photo:
        image = np.stack([np.asarray(photo.crop((x, 200, x + 256, 456))) for x in (0, 100)])
    mask, logits = make_session(int8, use_native=native).run(["mask", LOGITS], {"image": image})
    assert len(np.unique(mask)) > 2
    np.testing.assert_array_equal(mask, logits.argmax(axis=1))


def test_an_int8_model_gives_the_exponents_of_its_stages(model: Path, int8: Path) -> None:
    with Image.open(PHOTO) as photo:
        image = np.asarray(photo.crop((100, 200, 196, 296)))[None]
    stages = [stage.output for stage in make_session(model).metadata.stages]
    found, expected = (make_session(path).run(stages, {"image": image}) for path in (int8, model))
    for exponents, exact in zip(found, expected, strict=True):
        assert exponents.shape == exact.shape
        assert np.abs(exponents - exact).mean() < 0.1 * np.ptp(exact)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_network_of_others_with_a_pixel_shuffle_keeps_its_labels_in_int8(
    scale: int, data: Path, tmp_path: Path
) -> None:
    adopted, path = tmp_path / "adopted.onnx", tmp_path / "int8.onnx"
    adoption = Adoption(("a", "b", "c"), Normalisation((0.5,) * 3, (0.25,) * 3), multiple=4)
    onnx.save(shuffling_network(stride=2 * scale), tmp_path / "network.onnx")
    adopt_model(tmp_path / "network.onnx", adopted, adoption)
    lower_precision(adopted, path, "int8", calibration=data / "images")
    # Its nodes had no names, by which those that stay in float32 are told.
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(path).graph.node}
    image = np.random.default_rng(1).integers(0, 256, (1, 24, 36, 3), np.uint8)
    mask, logits = make_session(path).run(["mask", LOGITS], {"image": image})
    assert logits.shape == (1, 3, 24 // scale, 36 // scale)
    np.testing.assert_array_equal(mask, resize_argmax_reference(logits, mask.shape[1:]))
    (exact,) = make_session(adopted).run(["mask"], {"image": image})
    assert np.mean(mask == exact) > 0.95


def shuffling_network(stride: int) -> onnx.ModelProto:
    """Two convolutions and a pixel shuffle from [n, 3, h, w] to three classes."""
    rng = np.random.default_rng(5)
    shapes = {"first": (16, 3, 3, 3), "second": (12, 16, 1, 1)}
    weights = [
        onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("Conv", ["image", "first"], ["features"], strides=[stride] * 2, pads=[1] * 4),
        make("Relu", ["features"], ["positive"]),
        make("Conv", ["positive", "second"], ["spread"]),
        make("DepthToSpace", ["spread"], ["logits"], blocksize=2, mode="CRD"),
    ]
    image = value("image", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])
    logits = value("logits", onnx.TensorProto.FLOAT, [None] * 4)
    graph = onnx.helper.make_graph(nodes, "net", [image], [logits], weights)
    opsets = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


RESIZING = """
<ir_version: 8, opset_import: ["": {opset}]>
net (float[n, 3, h, w] image) => (float[n, k, height, width] logits)
{{
    narrow = AveragePool <kernel_shape = [3, 3], strides = [3, 3]> (image)
    none = Constant <value = float[0] {{}}> ()
    full = Shape (image)
    small = Shape (narrow)
    full_float = Cast <to = 1> (full)
    small_float = Cast <to = 1> (small)
    scales = {scales}
    wide = Resize <mode = "linear", coordinate_transformation_mode = "asymmetric">
        (narrow, none, scales)
    logits = Neg (wide)
}}
"""
COMPUTED = "Div (full_float, small_float)"
CONSTANT = "Constant <value = float[4] {1.0, 1.0, 2.9, 3.1}> ()"


@pytest.mark.parametrize(("opset", "scales"), [(11, CONSTANT), (17, CONSTANT), (13, COMPUTED)])
def test_the_scales_of_older_exporters_stay_exact_in_half_precision(
    scales: str, opset: int, tmp_path: Path
) -> None:
    onnx.save(onnx.parser.parse_model(RESIZING.format(opset=opset, scales=scales)), tmp_path / "n")
    adopted, half = tmp_path / "adopted.onnx", tmp_path / "half.onnx"
    adoption = Adoption((), Normalisation((0.5,), (0.25,)), size=(129, 131))
    adopt_model(tmp_path / "n", adopted, adoption)
    lower_precision(adopted, half, "fp16")
    image = np.random.default_rng(1).integers(0, 256, (1, 129, 131, 3), np.uint8)
    masks = [make_session(path).run(["mask"], {"image": image})[0] for path in (adopted, half)]
    assert np.mean(masks[0] != masks[1]) < 0.01


def test_what_is_converted_already_is_said(model: Path, int8: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.onnx"
    lower_precision(model, half, "fp16")
    for source, precision, reason in (
        (int8, "fp16", "is quantised already"),
        (int8, "int8", "is quantised already"),
        (half, "fp16", "is in float16 already"),
        (half, "int8", "quantise the float32 file instead"),
    ):
        with pytest.raises(ValueError, match=reason):
            lower_precision(source, tmp_path / "x", precision, calibration=tmp_path)  # type: ignore[arg-type]


def test_numbers_beyond_half_precision_are_noticed(tmp_path: Path) -> None:
    large = """
    <ir_version: 8, opset_import: ["": 17]>
    net (float[n, 3, h, w] image) => (float[n, 3, h, w] logits)
    {
        many = Constant <value = float {1e30}> ()
        huge = Mul (image, many)
        logits = Neg (huge)
    }
    """
    onnx.save(onnx.parser.parse_model(large), tmp_path / "n")
    adopt_model(tmp_path / "n", tmp_path / "adopted", Adoption((), Normalisation((0.5,), (0.25,))))
    with pytest.raises(ValueError, match="numbers inside the network leave its range"):
        lower_precision(tmp_path / "adopted", tmp_path / "half", "fp16")


@pytest.mark.parametrize("option", [[], ["--calibration", "empty"]])
def test_int8_without_images_to_calibrate_with_is_refused(
    option: list[str], model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["precision", str(model), "-o", str(tmp_path / "x"), "--precision", "int8", *option]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "expected a folder of images, got none" in result.stderr
    assert capfd.readouterr().err == ""  # where ONNX Runtime prints its warnings


def test_a_missing_mask_is_named(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes((data / "images" / "0.png").read_bytes())
    with pytest.raises(ValueError, match=r"0\.png: expected the mask"):
        score(model, tmp_path)


def test_a_mask_of_colours_is_no_mask(model: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    with Image.open(data / "images" / "0.png") as photo:
        photo.convert("RGB").save(tmp_path / "masks" / "0.png")
    with pytest.raises(ValueError, match=r"0\.png: expected one channel .*, got mode 'RGB'"):
        score(model, tmp_path)


def test_a_model_is_not_converted_in_place(model: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.onnx: expected another file"):
        lower_precision(model, model, "fp16")
