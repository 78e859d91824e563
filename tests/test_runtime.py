"""Sessions: which kernels run, what is said when they cannot, what is computed when asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from ppool import runtime
from ppool._library import custom_ops_library
from ppool.metadata import METADATA_KEY, InputPolicy, LabelClass, ModelMetadata, Stage
from ppool.onnx_ops import DOMAIN, OPSET, PLUGIN_ATTRIBUTES, function_bodies
from ppool.runtime import ALPHA_SWITCH, make_session

DESCRIPTION = ModelMetadata(
    name="tiny",
    network="by hand",
    classes=(LabelClass(0, "paper", "#ffffff"),),
    input=InputPolicy(max_side=64, multiple=1),
    stages=(Stage("pool1", "alpha/pool1", 1, 1, 0.0, 9.0),),
)
IMAGE = {"image": np.zeros((1, 2, 2, 3), np.uint8)}


@pytest.fixture
def model() -> ModelProto:
    """A contract-conforming model: a mask of zeros and an alpha map of nines, behind a switch."""
    graph = parser.parse_graph(
        """
        tiny (uint8[n, h, w, 3] image, bool alpha_wanted)
            => (uint8[n, h, w] mask, float[n, 1, h, w] "alpha/pool1")
        {
            first = Constant <value_ints = [0]> ()
            last = Constant <value_ints = [1]> ()
            channel = Constant <value_ints = [3]> ()
            red = Slice (image, first, last, channel)
            mask = Squeeze (red, channel)
            "alpha/pool1" = If (alpha_wanted) <
                then_branch = asked () => (float[n, 1, h, w] nines) {
                    size = Constant <value_ints = [1, 1, 2, 2]> ()
                    nines = ConstantOfShape <value = float[1] {9}> (size)
                },
                else_branch = not_asked () => (float[n, 1, h, w] nothing) {
                    size = Constant <value_ints = [0, 1, 0, 0]> ()
                    nothing = ConstantOfShape (size)
                }
            >
        }
        """
    )
    graph.initializer.append(numpy_helper.from_array(np.array(True), ALPHA_SWITCH))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: DESCRIPTION.to_json()})
    return model


@pytest.fixture
def pooling_model(model: ModelProto) -> ModelProto:
    """The same with a PPool node, whose output nobody needs, and its body."""
    x = numpy_helper.from_array(np.ones((1, 1, 2, 2), np.float32), "x")
    alpha = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "exponents")
    model.graph.initializer.extend([x, alpha])
    node = helper.make_node(
        "PPool",
        ["x", "exponents"],
        ["pooled"],
        domain=DOMAIN,
        kernel_shape=[2, 2],
        strides=[2, 2],
        pads=[0, 0, 0, 0],
        dilations=[1, 1],
        ceil_mode=0,
        signed=0,
        **PLUGIN_ATTRIBUTES,
    )
    model.graph.node.append(node)
    model.graph.output.append(helper.make_tensor_value_info("pooled", TensorProto.FLOAT, [1] * 4))
    model.functions.append(function_bodies()["PPool"])
    model.opset_import.append(helper.make_opsetid(DOMAIN, OPSET))
    return model


def test_a_session_reads_what_the_model_says_of_itself(model: ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(model.SerializeToString())
    for source in (path, str(path), path.read_bytes()):
        assert make_session(source, use_native=False).metadata == DESCRIPTION


def test_alpha_maps_are_computed_only_when_asked_for(model: ModelProto) -> None:
    session = make_session(model.SerializeToString())
    (mask,) = session.run(["mask"], IMAGE)
    alpha, mask_too = session.run(["alpha/pool1", "mask"], IMAGE)
    np.testing.assert_array_equal(alpha, np.full((1, 1, 2, 2), 9))
    np.testing.assert_array_equal(mask_too, mask)
    switched_off = IMAGE | {ALPHA_SWITCH: np.array(False)}
    assert session.session.run(["alpha/pool1"], switched_off)[0].shape == (0, 1, 0, 0)


def test_a_caller_that_knows_of_no_switch_gets_every_output(model: ModelProto) -> None:
    session = make_session(model.SerializeToString()).session
    assert [entry.name for entry in session.get_inputs()] == ["image"]
    assert session.run(None, IMAGE)[1].shape == (1, 1, 2, 2)


def test_a_model_without_a_switch_runs_too() -> None:
    graph = parser.parse_graph(
        "plain (uint8[n, h, w, 3] image) => (uint8[n, h, w, 3] mask) { mask = Identity (image) }"
    )
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(plain, {METADATA_KEY: DESCRIPTION.to_json()})
    (mask,) = make_session(plain.SerializeToString()).run(["mask"], IMAGE)
    np.testing.assert_array_equal(mask, IMAGE["image"])


def test_portable_kernels_run_when_asked_for(pooling_model: ModelProto) -> None:
    session = make_session(pooling_model.SerializeToString(), use_native=False)
    assert (session.kernels, session.reason) == ("portable", "as asked")
    np.testing.assert_array_equal(session.run(["pooled"], IMAGE)[0], [[[[1]]]])


@pytest.mark.skipif(custom_ops_library() is None, reason="the native library is not built")
def test_native_kernels_run_where_the_library_is_built(pooling_model: ModelProto) -> None:
    session = make_session(pooling_model.SerializeToString())
    assert (session.kernels, session.reason) == ("native", "")
    np.testing.assert_array_equal(session.run(["pooled"], IMAGE)[0], [[[[1]]]])


def test_portable_kernels_run_without_a_library(
    pooling_model: ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "custom_ops_library", lambda: None)
    session = make_session(pooling_model.SerializeToString())
    assert session.kernels == "portable"
    assert "library" in session.reason


def test_portable_kernels_run_when_the_library_fails_and_the_log_says_so_once(
    pooling_model: ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = tmp_path / "broken.so"
    broken.write_text("not a library")
    monkeypatch.setattr(runtime, "custom_ops_library", lambda: str(broken))
    for _ in range(2):
        session = make_session(pooling_model.SerializeToString())
        np.testing.assert_array_equal(session.run(["pooled"], IMAGE)[0], [[[[1]]]])
    assert session.kernels == "portable"
    assert session.reason == "the native library refused the model"
    assert "broken.so" in caplog.text
    assert [record.name for record in caplog.records] == ["ppool"]


def test_a_file_that_describes_nothing_is_refused(model: ModelProto) -> None:
    del model.metadata_props[:]
    with pytest.raises(ValueError, match="export it with ppool export"):
        make_session(model.SerializeToString())


@pytest.mark.parametrize("source", ["missing.onnx", b"not a model"])
def test_what_is_no_model_is_refused_without_blaming_the_library(
    source: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="cannot load"):
        make_session(source)
    assert not caplog.records


def test_the_runtime_needs_neither_torch_nor_onnx() -> None:
    check = "import sys, ppool.runtime; sys.exit(bool({'torch', 'onnx'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_onnx_runtime_is_loaded_with_its_telemetry_off() -> None:
    code = "import os, ppool.runtime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"
