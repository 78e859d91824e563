"""A pixel shuffle moved behind what looks at single pixels: the same numbers, fewer to shuffle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from ppool.export import Behind, export_model
from ppool.export._shuffle import shuffle_last
from ppool.models.exported import exported_state
from ppool.reference import resize_argmax_reference
from ppool.runtime import make_session

HEAD = """
<ir_version: 9, opset_import: ["" : 20]>
net (float[n, 32, h, w] coarse, float[n, 6, H, W] fine)
  => (float[n, ?, ?, ?] y{also})
<float[n, 8, H, W] up, float[n, 8, {size}] near, float[n, 8, H, W] s, float[n, 5, H, W] c,
 float[n, 5, H, W] other>
{{
    up = DepthToSpace <blocksize = 2, mode = "{mode}"> (coarse)
    near = Conv (fine, beside, shift)
    {body}
}}
"""
SUM = "s = Add (up, near)\n p = Relu (s)\n y = Conv (p, head, bias)"
OTHER_ORDER = "s = Add (near, up)\n p = Relu (s)\n q = Relu (p)\n y = Conv (q, head)"
AND_MORE = "p = Conv (up, head, bias)\n y = Sigmoid (p)\n z = Add (near, near)"
READ_TWICE = (
    "s = Add (up, near)\n p = Relu (s)\n c = Conv (p, head, bias)\n y = Concat <axis=1> (c, up)"
)
ITSELF = "s = Add (up, up)\n p = Conv (s, head)\n y = Relu (p)"
SHARED = "p = Conv (up, head, bias)\n q = Conv (near, head)\n y = Add (p, q)"
WIDER = "y = Conv (up, wider)"
# Who looks at every second pixel on the way, and a sum behind the last convolution.
LOOKED_AT = """
    c = Conv (up, head, bias)
    rows = Slice (c, from, to, down, two)
    z = Slice (rows, from, to, across, two)
    other = Conv (fine, beside_c)
    y = Add (c, other)
"""
ODD_LOOK = LOOKED_AT.replace("across, two", "across, one")
ANSWER = "y = Conv (up, head)\n z = Identity (up)"


def network(body: str, side: int = 1, mode: str = "CRD", size: str = "H, W") -> onnx.ModelProto:
    also = ", float[n, ?, ?, ?] z" if "z =" in body else ""
    model = onnx.parser.parse_model(HEAD.format(body=body, mode=mode, also=also, size=size))
    shapes: dict[str, tuple[int, ...]] = {
        "beside": (8, 6, 1, 1),
        "shift": (8,),
        "head": (5, 8, side, side),
        "bias": (5,),
        "wider": (12, 8, 1, 1),
        "beside_c": (5, 6, 1, 1),
    }
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    most = np.iinfo(np.int64).max
    for name, value in {"from": 0, "to": most, "down": 2, "across": 3, "one": 1, "two": 2}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([value]), name))
    return model


def answers(model: onnx.ModelProto) -> list[NDArray[np.float32]]:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    rng = np.random.default_rng(1)
    feeds = {"coarse": (2, 32, 9, 11), "fine": (2, 6, 18, 22)}
    values = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in feeds.items()}
    return session.run(None, {entry.name: values[entry.name] for entry in session.get_inputs()})


@pytest.mark.parametrize("body", [SUM, OTHER_ORDER, AND_MORE, LOOKED_AT])
def test_the_numbers_are_the_same_and_fewer_are_shuffled(body: str) -> None:
    model = network(body)
    expected = answers(model)
    shuffle_last(model.graph)
    for given, truth in zip(answers(model), expected, strict=True):
        np.testing.assert_allclose(given, truth, rtol=1e-5, atol=1e-5)
    maker = {name: node for node in model.graph.node for name in node.output}
    (shuffle,) = (node for node in model.graph.node if node.op_type == "DepthToSpace")
    last = maker[shuffle.input[0]]
    assert (maker[last.input[0]] if last.op_type == "Add" else last).input[1] == "head"


@pytest.mark.parametrize(
    ("body", "side", "mode", "size"),
    [
        (SUM, 3, "CRD", "H, W"),
        (SUM, 1, "DCR", "H, W"),
        (SUM, 1, "CRD", "1, 1"),
        (READ_TWICE, 1, "CRD", "H, W"),
        (ITSELF, 1, "CRD", "H, W"),
        (SHARED, 1, "CRD", "H, W"),
        (WIDER, 1, "CRD", "H, W"),
        (ODD_LOOK, 3, "CRD", "H, W"),
        (ANSWER, 1, "CRD", "H, W"),
    ],
)
def test_what_does_not_fit_is_left_alone(body: str, side: int, mode: str, size: str) -> None:
    model = network(body, side, mode, size)
    before = model.SerializeToString()
    shuffle_last(model.graph)
    assert model.SerializeToString() == before


class Tiny(nn.Module):
    """The last step of ``unet_pages``: half the resolution meets the pixels themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.expected = nn.Conv2d(4, 16, 3, padding=1)
        self.found = nn.Conv2d(4, 4, 1, bias=False)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        full = self.stem(x)
        y = F.pixel_shuffle(self.expected(F.avg_pool2d(full, 2)), 2) + self.found(F.relu(full))
        logits: torch.Tensor = self.head(F.relu(y))
        return logits


@pytest.mark.parametrize("behind", [None, Behind(["b", "c"], ["b", "c"], "a")])
def test_an_exported_file_leaves_the_shuffle_to_the_labels_and_gives_its_weights_back(
    tmp_path: Path, behind: Behind | None
) -> None:
    torch.manual_seed(0)
    network, path = Tiny(), tmp_path / "tiny.onnx"
    export_model(  # and compares
        network, path, classes="abc", mean=(0.6,) * 3, std=(0.25,) * 3, behind=behind
    )
    assert b"stack_trace" not in path.read_bytes()
    graph = onnx.load(path).graph
    maker = {name: node for node in graph.node for name in node.output}
    assert not any(node.op_type == "DepthToSpace" for node in graph.node)
    (labels,) = (node for node in graph.node if node.op_type == "ResizeArgMax")
    last = maker[maker[labels.input[0]].input[0]]
    if behind is not None:
        assert last.op_type == "Add"
        last = maker[last.input[0]]
    assert last.input[1] == "network.head.weight"
    image = np.random.default_rng(0).integers(0, 256, (2, 48, 32, 3), np.uint8)
    for native in (True, False):
        session = make_session(path, use_native=native)
        feeds = {"image": image, **session.sized(83, 61)}
        mask, logits = session.run(["mask", "logits"], feeds)
        assert logits.shape == (2, 3, 48, 32)
        assert np.count_nonzero(mask != resize_argmax_reference(logits, (83, 61))) <= 2
    state = exported_state(path, Tiny())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(state[name], value)
