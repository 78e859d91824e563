"""``ppool inspect``, what lies beside a network, and networks of other kinds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from ppool.export._adopt_cli import app
from ppool.metadata import InputPolicy
from ppool.runtime import make_session

CASES = Path(__file__).parent / "cases"
PHOTO = Path(__file__).parents[2] / "service" / "playground" / "notes.jpg"


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("name", "told", "preset"),
    [
        ("h_plain", "the largest of 4 logits", "imagenet"),
        ("onechannel_logit", "logits above 0, else background", "imagenet"),
        ("h_u8_input", "NHWC", "raw"),
        ("h_bgr255", "the network itself begins with", "raw"),
    ],
)
def test_two_commands_lead_from_an_unknown_file_to_a_mask(
    name: str, told: str, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, output = call("inspect", CASES / f"{name}.onnx", PHOTO, "-o", "seen.png")
    assert status == 0, output
    assert told in " ".join(output.split())
    with Image.open("seen.png") as picture:
        assert len(picture.getcolors(picture.width * picture.height) or []) > 10
    line = output.splitlines()[-1]
    assert f"--preset {preset}" in line
    status, output = call(*shlex.split(line)[1:])
    assert status == 0, output
    make_session(tmp_path / f"{name}-ppool.onnx")


def test_what_hugging_face_writes_beside_a_network_is_read(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    network = tmp_path / "onnx" / "model.onnx"
    network.write_bytes((CASES / "h_plain.onnx").read_bytes())
    processor = {
        "image_processor_type": "SegformerImageProcessor",
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
        "size": {"height": 64, "width": 96},
    }
    names = {"0": "wall", "1": "door", "2": "roof", "3": "tree"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    (tmp_path / "config.json").write_text(json.dumps({"id2label": names}))
    status, output = call("adopt", network, "-o", tmp_path / "out.onnx")
    assert status == 0, output
    assert output.count("read ") == 2
    about = make_session(tmp_path / "out.onnx").metadata
    assert [entry.name for entry in about.classes] == [*names.values()]
    assert about.input == InputPolicy.fixed(64, 96)
    assert about.training["fed"].startswith("RGB in [0, 1], mean 0.5, 0.5, 0.5, std 0.25")


def proposed(path: Path, *options: object) -> str:
    """The line that ``inspect`` proposes, which is then run."""
    status, output = call("inspect", path, *options)
    assert status == 0, output
    line = output.splitlines()[-1].strip()
    status, output = call(*shlex.split(line)[1:])
    assert status == 0, output
    return line


def beginning(nodes: str, **constants: Any) -> bytes:
    """A network of three classes that begins with these nodes, from ``x`` to ``ready``."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[n, 3, h, w] x) => (float[n, c, p, q] y) {{
            {nodes}
            y = Conv <kernel_shape = [1, 1]> (ready, w)
        }}"""
    )
    held: dict[str, Any] = {"w": np.array([[1, -1, 0], [0, 1, -1], [-1, 0, 1]])[:, :, None, None]}
    for name, values in (held | constants).items():
        array = np.array(values, np.int64 if name.startswith("size") else np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return bytes(model.SerializeToString())


def each(values: Sequence[float]) -> NDArray[Any]:
    return np.reshape(values, (1, 3, 1, 1))


NORMALISED = "a = Sub (x, mean) ready = Div (a, std)"
OF_ONE, CAFFE = (0.485, 0.456, 0.406), (103.939, 116.779, 123.68)


@pytest.mark.parametrize(
    ("nodes", "constants", "options"),
    [
        (NORMALISED, {"mean": each(OF_ONE), "std": each((0.229, 0.224, 0.225))}, "--scale 1"),
        (NORMALISED, {"mean": each((123, 116, 103)), "std": each((58, 57, 57))}, "--preset raw"),
        (NORMALISED, {"mean": 127.5, "std": 127.5}, "--preset raw"),
        (NORMALISED, {"mean": 0.5, "std": 0.5}, "--mean 0 --std 1 --scale 1"),
        ("ready = Sub (x, mean)", {"mean": each(CAFFE)}, "--preset raw --channels bgr"),
        ("a = Transpose <perm = [0, 1, 2, 3]> (x) ready = Mul (a, k)", {"k": 1 / 255}, "raw"),
        ("ready = Mul (x, k)", {"k": 255}, "--scale 1"),
        ("a = Mul (x, k) ready = Sub (one, a)", {"k": 2 / 255, "one": 1}, "--preset raw"),
        (
            "ready = BatchNormalization (x, s, b, m, v)",
            {"s": [1, 1, 1], "b": [0, 0, 0], "m": [120, 115, 100], "v": [3000, 3000, 3000]},
            "--preset raw",
        ),
        (
            f"z = Gather <axis = 1> (x, size) {NORMALISED.replace('(x', '(z')}",
            {"size": [2, 1, 0], "mean": each(CAFFE[::-1]), "std": 58},
            "--preset raw --channels bgr",
        ),
        # What tells less: a guess, and nothing.
        ("ready = Mul (x, k)", {"k": 2}, "--preset raw"),
        ("ready = Relu (x)", {}, "--preset imagenet"),
    ],
)
def test_what_a_network_does_to_photos_itself_is_not_done_twice(
    nodes: str, constants: dict[str, Any], options: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "network.onnx"
    path.write_bytes(beginning(nodes, **constants))
    line = proposed(path)
    assert options in line
    assert ("imagenet" in line) == ("imagenet" in options)


def test_a_size_that_the_file_does_not_declare_is_found(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "network.onnx"
    path.write_bytes(beginning("ready = Reshape (x, size)", size=[1, 3, 256, 256]))
    assert "--size 256x256" in proposed(path)
    # 14 x 14 patches, as DINOv2's.
    patches = "a = Reshape (x, size) b = ReduceSum <keepdims = 0> (a) c = Mul (b, zero)"
    path.write_bytes(beginning(f"{patches} ready = Add (x, c)", size=[-1, 196], zero=0))
    assert "--multiple 14" in proposed(path)


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("names", "{0: 'road', 1: 'pole', 2: \"driver's sky\"}"),
        ("labels", '["road", "pole", "driver\'s sky"]'),
        ("classes", "road, pole, driver's sky"),
        ("id2label", '{"0": "road", "1": "pole", "2": "driver\'s sky"}'),
    ],
)
def test_names_in_the_metadata_are_those_of_the_classes(
    key: str, written: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    path, names = tmp_path / "network.onnx", ["road", "pole", "driver's sky"]
    model = onnx.load_from_string(beginning("ready = Relu (x)"))
    helper.set_model_props(model, {"author": "somebody", key: written})
    path.write_bytes(model.SerializeToString())
    assert "--classes" not in proposed(path)
    about = make_session("network-ppool.onnx").metadata
    assert [entry.name for entry in about.classes] == names
    # Of another number of classes they are not.
    helper.set_model_props(model, {key: "{0: 'road'}"})
    path.write_bytes(model.SerializeToString())
    assert "--classes class0,class1,class2" in proposed(path)


def answering(outputs: dict[str, list[int]], inputs: dict[str, list[Any]] | None = None) -> bytes:
    """A network that gives zeros of these shapes, and looks at its first input."""
    given = inputs or {"images": [1, 3, 64, 64]}
    first = next(iter(given))
    nodes = [helper.make_node("ReduceMean", [first], ["mean"], keepdims=0)]
    constants = []
    for name, shape in outputs.items():
        constants.append(numpy_helper.from_array(np.zeros(shape, np.float32), f"{name}/zero"))
        nodes.append(helper.make_node("Add", [f"{name}/zero", "mean"], [name]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value(name, TensorProto.FLOAT, shape) for name, shape in given.items()],
        [value(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        constants,
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())


def detector_inside_a_loop() -> bytes:
    """Non-maximum suppression where only a branch of the graph has it."""
    model = onnx.load_from_string(answering({"y": [1, 9, 6]}))
    value = helper.make_tensor_value_info
    suppress = helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["picked"])
    branch = helper.make_graph([suppress], "b", [], [value("picked", TensorProto.INT64, None)])
    node = helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch)
    arrays = {
        "yes": np.array(True),
        "boxes": np.zeros((1, 2, 4), np.float32),
        "scores": np.zeros((1, 1, 2), np.float32),
    }
    model.graph.node.append(node)
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    return bytes(model.SerializeToString())


def unloadable(outputs: dict[str, list[int]], operator: str) -> bytes:
    """Has an operator that ONNX Runtime knows nothing of."""
    model = onnx.load_from_string(answering(outputs))
    model.graph.node.append(helper.make_node(operator, ["mean"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    return bytes(model.SerializeToString())


def classifier_of_another_library() -> bytes:
    """Labels, and a list of dictionaries, as scikit-learn's converter writes them."""
    model = onnx.load_from_string(answering({"scores": [1, 2]}))
    zipped = helper.make_node(
        "ZipMap", ["scores"], ["named"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
    )
    model.graph.node.append(zipped)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    number = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, number))
    model.graph.output.append(helper.make_value_info("named", kind))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (answering({"output0": [1, 116, 84], "output1": [1, 32, 16, 16]}), "as YOLO's '-seg'"),
        (answering({"output0": [1, 84, 8400]}), "is a detector"),
        (answering({"boxes": [9, 4], "masks": [9, 1, 28, 28]}), "is a detector or instance"),
        (
            answering({"class_queries_logits": [1, 9, 5], "masks_queries_logits": [1, 9, 16, 16]}),
            "classifies masks (MaskFormer",
        ),
        (
            unloadable(
                {"class_queries_logits": [1, 9, 5], "masks_queries_logits": [1, 9, 16, 16]},
                "MultiscaleDeformableAttnPlugin_TRT",
            ),
            "classifies masks (MaskFormer, Mask2Former, DETR)",
        ),
        (unloadable({"num": [1, 1]}, "EfficientNMS_TRT"), "(it has EfficientNMS_TRT)"),
        (unloadable({"y": [1, 2, 64, 64]}, "DCNv2"), "ONNX Runtime cannot load it"),
        (
            # Mask R-CNN, as torchvision exports it.
            answering(
                {"boxes": [1, 4], "labels": [1], "scores": [1], "masks": [1, 1, 64, 64]},
                {"images": [3, 64, 64]},
            ),
            "is a detector or instance segmentation",
        ),
        (answering({"logits": [1, 1000]}), "is a classifier"),
        (answering({"features": [1, 512, 1, 1]}), "is a classifier"),
        (answering({"image_embeddings": [1, 256, 16, 16]}), "the first half of SAM"),
        (answering({"y": [1, 2, 8, 8, 8]}, {"x": [1, 1, 8, 8, 8]}), "takes volumes or clips"),
        (
            answering({"y": [1, 2, 8, 8]}, {"x": [1, 3, 8, 8], "scale": [1]}),
            "expected one input, the image, got 2: x [1, 3, 8, 8], scale [1]",
        ),
        (
            answering({"masks": [1, 1, 8, 8]}, {"embed": [1, 256, 8, 8], "point_coords": [1, 2]}),
            "is promptable segmentation",
        ),
        (answering({"y": [1, 2, 8, 8]}, {"tokens": [1, 8]}), "expected photos, got [1, 8]"),
        # Exporters that know no names: DETR, its masks, YOLOS.
        (answering({"1121": [1, 9, 3], "1133": [1, 9, 4]}), "is a detector or instance"),
        (
            answering({"1153": [1, 9, 3], "1165": [1, 9, 4], "1643": [1, 9, 16, 16]}),
            "classifies masks (MaskFormer, Mask2Former, DETR)",
        ),
        (
            answering({"y": [1, 300, 4]}, {"images": [1, 3, 64, 64], "orig_target_sizes": [1, 2]}),
            "is a detector, which is told the photo's size",
        ),
        (
            answering({"y": [1, 64, 64]}, {"pixel_values": [1, 3, 64, 64], "input_ids": [1, 7]}),
            "is asked for things in words",
        ),
        (answering({"predicted_depth": [1, 64, 64]}), "estimates distances, not classes"),
        (answering({"heatmaps": [1, 17, 16, 16]}), "finds joints of bodies"),
        (answering({"output": [1, 3, 256, 256]}), "gives more pixels than it takes"),
        (answering({"y": [1, 2, 64, 64]}, {"x": ["n", 4, "h", "w"]}), "all that a photo has"),
        (answering({"y": [1, 2, 64, 64]}, {"x": [1, 100, 1, 1]}), "all that a photo has"),
        (detector_inside_a_loop(), "is a detector or instance segmentation (it has NonMax"),
        (classifier_of_another_library(), "is a classifier"),
    ],
)
@pytest.mark.parametrize("command", ["adopt", "inspect"])
def test_networks_of_other_kinds_are_refused_by_name(
    command: str, content: bytes, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(content)
    options = ["-o", tmp_path / "out.onnx", "--preset", "imagenet"] if command == "adopt" else []
    status, output = call(command, path, *options)
    assert status == 1
    assert kind in output
    assert len(output.strip().splitlines()) == 1


def grey_scaled(factor: float, offset: float) -> bytes:
    """The photo's lightness, from 0 to 1 where it is fed so, times a factor and moved."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["grey"], axes=[1]),
        helper.make_node("Mul", ["grey", "factor"], ["large"]),
        helper.make_node("Add", ["large", "offset"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [value("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.float32(number), name)
            for name, number in {"factor": factor, "offset": offset}.items()
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("factor", "offset", "doubt"),
    [
        (8, -50, "nothing but background is seen in a page of writing and in noise"),
        (0.05, 0.93, "nothing but foreground is seen"),
        (0.5, 0.2, "of the values on a page are between 0.1 and 0.9, as those of maps of dist"),
        (30, -15, ""),
        # Distances of both signs.
        (2, -1, "of the values on a page are between -2.2 and 2.2, as those of maps of dist"),
        (900, -30, "from the threshold, as those of maps of distances are, and logits are not"),
    ],
)
def test_what_may_be_wrong_is_said(
    factor: float, offset: float, doubt: str, tmp_path: Path
) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(grey_scaled(factor, offset))
    beside = {"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(beside))
    for command in (["adopt", path, "-o", tmp_path / "out.onnx"], ["inspect", path]):
        status, output = call(*command)
        assert status == 0, output
        said = " ".join(output.split())
        assert ("doubt" in said, doubt in said) == (bool(doubt), True)
    kept = make_session(tmp_path / "out.onnx").metadata.training.get("doubts", "")
    assert bool(kept) == bool(doubt)


@pytest.mark.parametrize("command", ["adopt", "inspect"])
def test_distances_without_a_name_are_no_scores(command: str, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(grey_scaled(37, 2))
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0, 0, 0], "image_std": [1, 1, 1]})
    )
    options = ["-o", tmp_path / "out.onnx"] if command == "adopt" else []
    status, output = call(command, path, *options)
    assert status == 1
    assert "are neither logits nor probabilities, but perhaps distances" in " ".join(output.split())


def test_more_weights_than_one_file_holds_are_a_sentence(tmp_path: Path) -> None:
    model = onnx.load(CASES / "h_plain.onnx")
    path, beside = tmp_path / "huge.onnx", tmp_path / "huge.bin"
    onnx.save(model, path, save_as_external_data=True, location=beside.name, size_threshold=64)
    with beside.open("r+b") as file:
        file.truncate(3 * 10**9)  # sparse: takes no room
    status, output = call("adopt", path, "-o", tmp_path / "out.onnx", "--preset", "imagenet")
    assert status == 1
    assert "3.0 GB of weights; one ONNX file holds 2 GB at most" in output
    beside.unlink()
    status, output = call("adopt", path, "-o", tmp_path / "out.onnx", "--preset", "imagenet")
    assert status == 1
    assert "its weights are in huge.bin, which is not beside it" in output
