"""``ppool tensorrt``: the trtexec lines, and building through a stand-in for TensorRT."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from ppool.export import PRESETS, Adoption, _tensorrt, adopt_model
from ppool.export._cli import app
from ppool.onnx_ops import SHAPE_INPUTS

SHIPPED = Path(__file__).parents[2] / "ppool" / "service" / "assets" / "pages.onnx"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The shipped model as the exporter writes it now."""
    loaded = onnx.load(SHIPPED)
    for node in loaded.graph.node:
        if node.op_type == "ResizeArgMax" and not any(
            attribute.name == SHAPE_INPUTS for attribute in node.attribute
        ):
            node.attribute.append(helper.make_attribute(SHAPE_INPUTS, [1]))
    path = tmp_path / "pages.onnx"
    onnx.save(loaded, path)
    return path


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["tensorrt", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)


@pytest.mark.usefixtures("no_tensorrt")
def test_without_tensorrt_both_lines_are_printed_and_the_cure_is_told(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tensorrt, "plugin_library", lambda: Path("/opt/lib/_tensorrt.so"))
    code, output = call(model, "--max-batch", 8, "--max-side", 512)
    lines = [shlex.split(line) for line in output.splitlines() if "trtexec" in line]
    assert code == 1
    assert "TensorRT is not installed here" in output
    shapes = [
        "--minShapes=image:1x32x32x3",
        "--optShapes=image:8x512x512x3",
        "--maxShapes=image:8x512x512x3",
    ]
    common = ["trtexec", f"--onnx={model}", f"--saveEngine={model.with_suffix('.engine')}", *shapes]
    plugin = "/opt/lib/_tensorrt.so"
    assert lines[0] == [
        *common, f"--dynamicPlugins={plugin}", f"--setPluginsToSerialize={plugin}",
    ]  # fmt: skip
    assert lines[1] == common


class StandIn:
    """The part of TensorRT's Python package that building an engine calls."""

    def __init__(self, *, parses: bool = True) -> None:
        self.seen: dict[str, Any] = {}
        seen, flags = self.seen, SimpleNamespace(STRONGLY_TYPED=1)
        profile = SimpleNamespace(set_shape=lambda *shapes: seen.update(shapes=shapes))
        config = SimpleNamespace(add_optimization_profile=lambda _: None, plugins_to_serialize=[])
        seen["config"] = config

        def create_network(flag: int) -> str:
            seen["flag"] = flag
            return "network"

        def parse(content: bytes) -> bool:
            seen["model"] = onnx.load_from_string(content)
            return parses

        self.module = SimpleNamespace(
            Logger=type("Logger", (), {"WARNING": 2, "__init__": lambda *_: None}),
            NetworkDefinitionCreationFlag=flags,
            get_plugin_registry=lambda: SimpleNamespace(
                load_library=lambda path: seen.update(library=path)
            ),
            Builder=lambda _: SimpleNamespace(
                create_network=create_network,
                create_builder_config=lambda: config,
                create_optimization_profile=lambda: profile,
                build_serialized_network=lambda *_: b"engine",
            ),
            OnnxParser=lambda *_: SimpleNamespace(
                parse=parse, num_errors=1, get_error=lambda _: "no importer for Frobnicate"
            ),
        )


def test_the_engine_is_built_with_the_plugins_loaded_and_stored(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in.module)  # type: ignore[arg-type]
    monkeypatch.setattr(_tensorrt, "plugin_library", lambda: Path("/opt/_tensorrt.so"))
    engine = model.with_name("out.engine")
    code, output = call(model, "-o", engine, "--max-side", 256)
    assert code == 0, output
    assert engine.read_bytes() == b"engine"
    assert stand_in.seen["library"] == "/opt/_tensorrt.so"
    assert stand_in.seen["config"].plugins_to_serialize == ["/opt/_tensorrt.so"]
    assert stand_in.seen["shapes"] == ("image", (1, 32, 32, 3), (1, 256, 256, 3), (1, 256, 256, 3))
    assert stand_in.seen["flag"] == 2


def test_without_plugins_the_function_bodies_go_to_tensorrt(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in.module)  # type: ignore[arg-type]
    code, output = call(model, "--no-plugin")
    assert code == 0, output
    assert "library" not in stand_in.seen
    assert {body.name for body in stand_in.seen["model"].functions} >= {"PPoolUnit", "ResizeArgMax"}


def test_what_tensorrt_refuses_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", StandIn(parses=False).module)  # type: ignore[arg-type]
    code, output = call(model, "--no-plugin")
    assert code == 1
    assert "TensorRT cannot read it: no importer for Frobnicate" in output


def test_a_file_from_before_the_plugins_is_refused_with_the_cure(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = onnx.load(model)
    for node in loaded.graph.node:
        kept = [attribute for attribute in node.attribute if attribute.name != SHAPE_INPUTS]
        del node.attribute[:]
        node.attribute.extend(kept)
    onnx.save(loaded, model)
    monkeypatch.setattr(_tensorrt, "plugin_library", lambda: Path("/opt/_tensorrt.so"))
    code, output = call(model)
    assert code == 1
    assert "export the model again, or use --no-plugin" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-side", "100"], "max_side: expected a multiple of 32 pixels, got 100"),
        (["--max-batch", "0"], "max_batch: expected at least 1, got 0"),
    ],
)
def test_limits_that_make_no_sense_are_refused(
    model: Path, options: list[str], message: str
) -> None:
    code, output = call(model, *options)
    assert code == 1
    assert message in output


def adopted(folder: Path, sizes: list[Any]) -> Path:
    """A network of others that takes these sizes, [N, 3, H, W]."""
    value, weight = helper.make_tensor_value_info, np.ones((2, 3, 1, 1), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "net",
        [value("x", TensorProto.FLOAT, sizes)],
        [value("y", TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "net.onnx")
    path = folder / "adopted.onnx"
    adopt_model(folder / "net.onnx", path, Adoption((), PRESETS["imagenet"], multiple=14))
    return path


@pytest.mark.usefixtures("no_tensorrt")
@pytest.mark.parametrize(
    ("sizes", "least", "most"),
    [
        ([1, 3, 24, 40], "1x24x40x3", "1x24x40x3"),
        (["n", 3, "h", "w"], "1x14x14x3", "1x1036x1036x3"),
    ],
)
def test_shapes_are_those_that_a_network_can_have(
    sizes: list[Any], least: str, most: str, tmp_path: Path
) -> None:
    _, output = call(adopted(tmp_path, sizes))
    assert f"--minShapes=image:{least} " in output
    assert f"--maxShapes=image:{most}" in output


@pytest.mark.usefixtures("no_tensorrt")
def test_a_size_that_a_network_cannot_have_is_refused(tmp_path: Path) -> None:
    code, output = call(adopted(tmp_path, [1, 3, 24, 40]), "--max-side", 64)
    assert code == 1
    assert "as this network takes 24 x 40 pixels only, got 64" in output


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("no model")
    code, output = call(path)
    assert code == 1
    assert "error: " in output
