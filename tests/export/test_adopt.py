"""Networks exported by others, wrapped into the one-file contract."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from ppool.export import Adoption, Normalisation, adopt_model
from ppool.export._adopt_cli import app
from ppool.metadata import InputPolicy
from ppool.reference import resize_argmax_reference
from ppool.runtime import make_session

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ADOPTION = Adoption(("road", "pole", "sky"), Normalisation(MEAN, STD), multiple=4)
ARGUMENTS = ["--classes", "road,pole,sky", "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2"]
FREE: tuple[Any, ...] = ("n", 3, "h", "w")
RNG = np.random.default_rng(4)
WEIGHT = RNG.standard_normal((3, 3, 3, 3)).astype(np.float32)


def network(
    sizes: tuple[Any, ...] = FREE, dtype: int = TensorProto.FLOAT, opset: int = 17
) -> ModelProto:
    """A 3x3 convolution of stride 2 to three classes, with a second output, under plain names."""
    value = helper.make_tensor_value_info
    free = [None] * 4
    weight = numpy_helper.from_array(WEIGHT.astype(helper.tensor_dtype_to_np_dtype(dtype)), "mean")
    nodes = [
        helper.make_node("Conv", ["image", "mean"], ["mask"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("ArgMax", ["mask"], ["labels"], axis=1),
    ]
    outputs = [value("mask", dtype, free), value("labels", TensorProto.INT64, free)]
    graph = helper.make_graph(nodes, "net", [value("image", dtype, sizes)], outputs, [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(model: ModelProto, folder: Path) -> Path:
    path = folder / "network.onnx"
    onnx.save(model, path)
    return path


def adopt(model: ModelProto, folder: Path, **changes: Any) -> Path:
    path = folder / "adopted.onnx"
    options = {**vars(ADOPTION), "output": "mask", **changes}
    adopt_model(saved(model, folder), path, Adoption(**options))
    return path


def expected(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Normalised, convolved and labelled, with nothing of ONNX in it."""
    x = (image.transpose(2, 0, 1) / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[
        :, None, None
    ]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2]
    logits = np.einsum("chwij,kcij->khw", windows, WEIGHT)
    return resize_argmax_reference(logits[None], image.shape[:2])


@pytest.mark.parametrize("opset", [13, 17, 20, 22])
@pytest.mark.parametrize("native", [False, True])
def test_the_file_does_what_the_network_does(tmp_path: Path, opset: int, native: bool) -> None:
    session = make_session(adopt(network(opset=opset), tmp_path), use_native=native)
    images = RNG.integers(0, 256, (3, 24, 36, 3), np.uint8)
    (masks,) = session.run(["mask"], {"image": images})
    truth = np.concatenate([expected(image) for image in images])
    assert len(np.unique(truth)) == 3
    assert np.count_nonzero(masks != truth) <= 1


@pytest.mark.parametrize(
    ("resize", "fused"),
    [
        ({"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}, True),
        ({"mode": "linear", "coordinate_transformation_mode": "align_corners"}, False),
        ({"mode": "nearest"}, False),
    ],
)
def test_a_last_bilinear_resize_is_fused_where_it_means_the_same(
    tmp_path: Path, resize: dict[str, str], fused: bool
) -> None:
    model = network()
    model.graph.node.append(helper.make_node("Resize", ["mask", "", "scales"], ["large"], **resize))
    scales = np.array([1, 1, 2, 2], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(scales, "scales"))
    large = helper.make_tensor_value_info("large", TensorProto.FLOAT, [None] * 4)
    model.graph.output.append(large)
    path = adopt(model, tmp_path, output="large")
    (last,) = [node for node in onnx.load(path).graph.node if node.op_type == "ResizeArgMax"]
    assert last.input[0] == ("network/mask" if fused else "network/large")
    assert ("Resize" in {node.op_type for node in onnx.load(path).graph.node}) is not fused
    image = RNG.integers(0, 256, (1, 24, 36, 3), np.uint8)
    x = (image.transpose(0, 3, 1, 2) / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[
        :, None, None
    ]
    original = onnxruntime.InferenceSession(model.SerializeToString())
    (logits,) = original.run(["large"], {"image": x.astype(np.float32)})
    (mask,) = make_session(path).run(["mask"], {"image": image})
    assert np.count_nonzero(mask != logits.argmax(1)) <= 1


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("opset", [12, 17, 20])
def test_a_last_resize_of_one_size_is_done_with_that_to_the_size_of_the_photo(
    tmp_path: Path, opset: int, native: bool
) -> None:
    model = network((1, 3, 24, 36), opset=opset)
    linear = {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}
    inputs = ["mask", "none" if opset < 13 else "", "scales"]
    model.graph.node.append(helper.make_node("Resize", inputs, ["large"], **linear))
    for name, values in (("scales", [1, 1, 2, 2]), ("none", [])):
        constant = numpy_helper.from_array(np.array(values, np.float32), name)
        model.graph.initializer.append(constant)
    model.graph.output.append(helper.make_tensor_value_info("large", TensorProto.FLOAT, [None] * 4))
    path = adopt(model, tmp_path, output="large")
    operators = [node.op_type for node in onnx.load(path).graph.node]
    fused = opset > 12
    assert ("ResizeTwiceArgMax" in operators) is fused
    assert ("Resize" in operators) is not fused
    image = RNG.integers(0, 256, (1, 24, 36, 3), np.uint8)
    x = (image.transpose(0, 3, 1, 2) / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[
        :, None, None
    ]
    original = onnxruntime.InferenceSession(model.SerializeToString())
    (logits,) = original.run(["large"], {"image": x.astype(np.float32)})
    session = make_session(path, use_native=native)
    (own,) = session.run(["logits"], {"image": image})
    np.testing.assert_allclose(own, logits, atol=1e-5)
    for size in ((24, 36), (61, 50), (9, 100)):
        (mask,) = session.run(["mask"], {"image": image, **session.sized(*size)})
        truth = resize_argmax_reference(logits, size)
        assert len(np.unique(truth)) == 3
        assert np.count_nonzero(mask != truth) <= 1


def test_what_only_a_branch_of_the_network_reads_stays(tmp_path: Path) -> None:
    model = network()
    value = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [None] * 4)
    branches = {
        name: helper.make_graph([helper.make_node(op, ["mask"], ["chosen"])], name, [], [value])
        for name, op in (("then_branch", "Identity"), ("else_branch", "Neg"))
    }
    model.graph.node.append(helper.make_node("If", ["yes"], ["final"], **branches))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.output.append(helper.make_tensor_value_info("final", TensorProto.FLOAT, [None] * 4))
    session = make_session(adopt(model, tmp_path, output="final"))
    image = RNG.integers(0, 256, (24, 36, 3), np.uint8)
    (masks,) = session.run(["mask"], {"image": image[None]})
    assert np.count_nonzero(masks != expected(image)) <= 1


def test_the_file_says_what_it_was_told(tmp_path: Path) -> None:
    about = make_session(adopt(network(), tmp_path, max_side=512)).metadata
    assert (about.name, about.network) == ("adopted", "net")
    assert [label.name for label in about.classes] == ["road", "pole", "sky"]
    assert about.input == InputPolicy(max_side=512, multiple=4)
    assert about.head == "argmax"
    assert about.training == {
        "adopted": "network.onnx",
        "fed": "RGB in [0, 1], mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225, NCHW float32",
        "mask": "the largest of 3 logits",
    }


def test_half_precision_networks_are_fed_half_precision(tmp_path: Path) -> None:
    session = make_session(adopt(network(dtype=TensorProto.FLOAT16), tmp_path))
    image = RNG.integers(0, 256, (24, 36, 3), np.uint8)
    (mask,) = session.run(["mask"], {"image": image[None]})
    assert np.mean(mask != expected(image)) < 0.01


def test_a_network_of_one_size_is_fed_that_size_in_any_batch(tmp_path: Path) -> None:
    session = make_session(adopt(network((1, 3, 16, 24)), tmp_path))
    assert session.metadata.input == InputPolicy.fixed(16, 24)
    images = RNG.integers(0, 256, (2, 16, 24, 3), np.uint8)
    (masks,) = session.run(["mask"], {"image": images})
    np.testing.assert_array_equal(masks, np.concatenate([expected(image) for image in images]))


def test_a_network_that_cannot_batch_is_run_image_by_image(tmp_path: Path) -> None:
    model = network((1, 3, 16, 24))
    shape = numpy_helper.from_array(np.array([1, 3, 8, 12]), "one")
    model.graph.initializer.append(shape)
    model.graph.node[0].output[0] = "logits"
    model.graph.node.insert(1, helper.make_node("Reshape", ["logits", "one"], ["mask"]))
    session = make_session(adopt(model, tmp_path))
    images = RNG.integers(0, 256, (3, 16, 24, 3), np.uint8)
    (masks,) = session.run(["mask"], {"image": images})
    np.testing.assert_array_equal(masks, np.concatenate([expected(image) for image in images]))


@pytest.mark.parametrize(("pads", "tiles"), [([1, 1, 1, 1], True), ([0, 0, 0, 0], False)])
def test_only_scores_on_a_grid_of_whole_pixels_are_for_tiles(
    tmp_path: Path, pads: list[int], tiles: bool
) -> None:
    model = network()
    del model.graph.node[0].attribute[:]
    model.graph.node[0].attribute.append(helper.make_attribute("pads", pads))
    arguments = ["adopt", str(saved(model, tmp_path)), "-o", str(tmp_path / "out.onnx")]
    result = CliRunner().invoke(app, [*arguments, "--output-name", "mask", *ARGUMENTS])
    assert result.exit_code == 0, result.stderr
    assert ("will refuse mode=tile" in result.stdout) is not tiles
    session = make_session(tmp_path / "out.onnx")
    assert session.offers_logits
    assert session.offers_tiles is tiles
    image = RNG.integers(0, 256, (1, 64, 64, 3), np.uint8)
    assert session.run(["mask"], {"image": image})[0].shape == (1, 64, 64)


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (network(), {"classes": ("a", "b")}, "--classes: expected 3, as many .*, got 2"),
        (network(), {"output": None}, r"--output-name: say which of \['mask', 'labels'\]"),
        (network(), {"output": "labels", "classes": ("a",)}, "expected 3 or more, .*, got 1"),
        (network(("n", 9, 9, 9)), {}, r"expected \[N, C, H, W\] .*, got \[\?, 9, 9, 9\]"),
        (network(("n", 1, 9, 9)), {}, "takes one channel: use --channels grey"),
        (network((4, 3, 8, 8)), {}, "N free or 1"),
        (network((1, 3, 8, 8)), {"size": (9, 8)}, "--size: expected 8x8, .* got 9x8"),
        (network(), {"name": "街"}, "name: expected printable ASCII without '/', got '街'"),
        (network(), {"name": "a/b"}, "name: .* got 'a/b'"),
    ],
)
def test_what_does_not_fit_is_explained(
    model: ModelProto, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        adopt(model, tmp_path, **changes)
    assert not (tmp_path / "adopted.onnx").exists()


def test_a_network_is_never_written_over(tmp_path: Path) -> None:
    source = saved(network(), tmp_path)
    content = source.read_bytes()
    with pytest.raises(ValueError, match=r"network\.onnx: expected another file"):
        adopt_model(source, tmp_path / "." / source.name, ADOPTION)
    assert source.read_bytes() == content


def test_a_file_of_ours_needs_no_adoption(tmp_path: Path) -> None:
    ours = onnx.load(adopt(network(), tmp_path))
    with pytest.raises(ValueError, match="serve it as it is"):
        adopt(ours, tmp_path)


def test_the_command_adopts_without_pytorch(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("road\npole\nsky\n")
    arguments = ["adopt", str(saved(network(), tmp_path)), "-o", str(tmp_path / "out.onnx")]
    arguments += ["--classes", str(tmp_path / "classes.txt"), "--output-name", "mask"]
    arguments += [*ARGUMENTS[2:], "--size", "64x48"]
    script = (
        "import sys; sys.modules['torch'] = None; from ppool.export.__main__ import main; "
        f"sys.argv[1:] = {arguments!r}; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "3 classes, resized to 64 x 48 pixels" in done.stdout
    assert make_session(tmp_path / "out.onnx").metadata.input == InputPolicy.fixed(64, 48)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mean", "a"], "--mean: expected numbers between commas, got 'a'"),
        (["--std", "1,1,0"], "std: expected positive values"),
        (["--std", "1,1,nan"], "std: expected positive values"),
        (["--mean", "123.7,116.3,103.5"], "multiply or divide one by 255"),
        (["--classes", "lost.txt"], "--classes: expected a file with one name a line, got none"),
        (["--size", "64"], "--size: expected HEIGHTxWIDTH such as 256x512, got '64'"),
    ],
)
def test_the_command_explains_a_bad_option(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    source, target = str(saved(network(), tmp_path)), str(tmp_path / "out.onnx")
    result = CliRunner().invoke(app, ["adopt", source, "-o", target, *ARGUMENTS, *arguments])
    assert result.exit_code == 1
    assert message in result.stderr
