"""Each operator in ONNX Runtime against the reference: function bodies, and native kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ppool._library import custom_ops_library
from ppool.onnx_ops import (
    DOMAIN,
    ONNX_OPSET,
    OPSET,
    PLUGIN_ATTRIBUTES,
    RESIZE_OPERATORS,
    function_bodies,
    register_schemas,
    resize_argmax_for,
)
from ppool.reference import alpha_reference, ppool2d_reference, resize_argmax_reference
from ppool.window import Window
from tests.windows import Case, assert_largest, cases, scale_of

Array = NDArray[Any]
Run = Callable[..., Array]

LABELS = RESIZE_OPERATORS | {"ResizeTwiceArgMax": onnx.TensorProto.UINT8}

register_schemas()
quick = settings(max_examples=60, deadline=None)

AWKWARD = [0.0, -0.0, 1e-45, 1e-40, 1e-30, 0.5, 1.0, 3.0, -2.0, 1e30, float("inf"), float("nan")]
RELATIVE_ERROR = {np.float32: 1e-5, np.float16: 1e-3}


def model_of(operator: str, inputs: dict[str, Array], attributes: dict[str, Any]) -> bytes:
    """A model of one node that carries the node's body."""
    in_blocks = next(iter(inputs.values())).ndim == 6
    body = function_bodies(in_blocks=in_blocks)[operator]
    graph = helper.make_graph(
        [
            helper.make_node(
                operator,
                list(inputs),
                list(body.output),
                domain=DOMAIN,
                **attributes,
                **PLUGIN_ATTRIBUTES,
            )
        ],
        operator,
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim
            )
            for name, value in inputs.items()
        ],
        [
            helper.make_tensor_value_info(
                body.output[0],
                LABELS[operator]
                if operator in LABELS
                else helper.np_dtype_to_tensor_dtype(next(iter(inputs.values())).dtype),
                [None] * (3 if operator in LABELS else 4),
            )
        ],
    )
    opsets = [helper.make_opsetid("", ONNX_OPSET), helper.make_opsetid(DOMAIN, OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[body])
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.fixture(scope="module", params=["portable", "native"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run one operator in ONNX Runtime on the inputs given."""
    library = custom_ops_library() if request.param == "native" else None
    if request.param == "native" and library is None:
        pytest.skip("the native library is not built")

    def run_operator(operator: str, inputs: dict[str, Array], **attributes: Any) -> Array:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        if library is not None:
            options.register_custom_ops_library(library)
        model = model_of(operator, inputs, attributes)
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        output: Array = session.run(None, inputs)[0]
        return output

    return run_operator


def geometry(window: Window, signed: bool) -> dict[str, Any]:
    return {
        "kernel_shape": window.kernel,
        "strides": window.stride,
        "pads": window.padding * 2,
        "dilations": window.dilation,
        "ceil_mode": int(window.ceil_mode),
        "signed": int(signed),
    }


CLIP = {"input_scale": 1.0, "alpha_min": 1e-4, "alpha_max": 35.0, "num_outputs": 1}


def branch(channels: int, window: Window) -> dict[str, Array]:
    """Side-branch parameters that send alpha all over its range."""
    random = np.random.default_rng(channels)
    return {
        "w_region": random.uniform(-1, 1, (channels, 1, *window.kernel)).astype(np.float32),
        "prelu_slope": random.uniform(-1, 1, channels).astype(np.float32),
        "w_point": random.uniform(-1, 1, channels).astype(np.float32),
        "b_point": random.uniform(-5, 25, channels).astype(np.float32),
    }


def assert_close(found: Array, expected: Array, x: Array, *, signed: bool, error: float) -> None:
    """Equal up to ``error``, relative to the value or, under Eq. 2, to the plane's shift."""
    assert found.shape == expected.shape
    least = np.nan_to_num(x.astype(np.float64), nan=0.0).min((2, 3), initial=0.0, keepdims=True)
    shift = -least * signed
    # A denormal cannot be rounded any finer than its own step.
    step = float(np.finfo(found.dtype).smallest_subnormal)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite])
    difference = np.abs(np.subtract(found, expected, where=finite, out=np.zeros_like(expected)))
    allowed = error * (np.abs(expected) + shift) + step
    assert (difference <= allowed)[finite].all(), f"{found}\n{expected}"


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@given(case=cases())
@quick
def test_ppool_equals_the_reference(run: Run, dtype: type, case: Case) -> None:
    # Scaled into the range of float16: the arithmetic is that of float32 in any case.
    factor = 1 / scale_of(case) if dtype == np.float16 else 1.0
    x, alpha = (case.x * factor).astype(dtype), case.alpha.astype(dtype)
    found = run("PPool", {"X": x, "alpha": alpha}, **geometry(case.window, case.signed))
    assert found.dtype == dtype
    expected = ppool2d_reference(x, alpha, *case.arguments, signed=case.signed)
    assert_close(found, expected, x, signed=case.signed, error=RELATIVE_ERROR[dtype])


@given(
    x=st_numpy.arrays(np.float32, (1, 2, 5, 6), elements=st.sampled_from(AWKWARD)),
    alpha=st_numpy.arrays(np.float32, (1, 2, 3, 3), elements=st.sampled_from([0, 1, 35, 110])),
    signed=st.booleans(),
)
@quick
def test_ppool_of_awkward_values_equals_the_reference(
    run: Run, x: Array, alpha: Array, signed: bool
) -> None:
    found = run("PPool", {"X": x, "alpha": alpha}, **geometry(Window.of(3, 2, 1), signed))
    expected = ppool2d_reference(x, alpha, 3, 2, 1, signed=signed)
    assert_close(found, expected, x, signed=signed, error=1e-5)


def test_ppool_of_a_nan_exponent_is_nan(run: Run) -> None:
    x = np.ones((1, 1, 2, 4), np.float32)
    alpha = np.array([[[[np.nan, 1.0]]]], np.float32)
    found = run("PPool", {"X": x, "alpha": alpha}, **geometry(Window.of(2), signed=False))
    np.testing.assert_array_equal(found, [[[[np.nan, 1.0]]]])


def test_ppool_of_an_infinite_exponent_is_the_maximum(run: Run) -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    alpha = np.full((1, 1, 2, 2), np.inf, np.float32)
    found = run("PPool", {"X": x, "alpha": alpha}, **geometry(Window.of(2), signed=False))
    np.testing.assert_array_equal(found, [[[[5, 7], [13, 15]]]])


@given(
    case=cases(extreme=False),
    input_scale=st.sampled_from([1.0, 100.0]),
    alpha_min=st.sampled_from([0.0, 1e-4]),
    alpha_max=st.sampled_from([2.0, 35.0]),
)
@quick
def test_ppool_unit_equals_the_reference(
    run: Run, case: Case, input_scale: float, alpha_min: float, alpha_max: float
) -> None:
    x = (case.x / scale_of(case)).astype(np.float32)
    parameters = branch(x.shape[1], case.window)
    clip = {"input_scale": input_scale, "alpha_min": alpha_min, "alpha_max": alpha_max}
    found = run(
        "PPoolUnit",
        {"X": x, **parameters},
        **geometry(case.window, case.signed),
        **clip,
        num_outputs=1,
    )
    alpha = alpha_reference(x, *parameters.values(), *case.arguments, **clip)
    expected = ppool2d_reference(x, alpha, *case.arguments, signed=case.signed)
    # At a scale of 100 the branch's sum is good to 1e-4; y moves by at most 0.4 times as much.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_ppool_unit_passes_nan_on_and_keeps_it_in_its_window(run: Run) -> None:
    x = np.ones((1, 1, 4, 4), np.float32)
    x[0, 0, 0, 0] = np.nan
    window = Window.of(2)
    found = run("PPoolUnit", {"X": x, **branch(1, window)}, **geometry(window, signed=True), **CLIP)
    np.testing.assert_array_equal(found, [[[[np.nan, 1], [1, 1]]]])


@pytest.mark.parametrize("operator", ["PPool", "PPoolUnit"])
def test_an_image_pools_alike_alone_and_among_neighbours(run: Run, operator: str) -> None:
    random = np.random.default_rng(7)
    window = Window.of(3, 2, 1)
    x = random.standard_normal((8, 5, 13, 11)).astype(np.float32)
    alpha = random.uniform(0, 35, (8, 5, *window.output_size(13, 11))).astype(np.float32)

    def pooled(part: slice) -> Array:
        if operator == "PPool":
            return run(operator, {"X": x[part], "alpha": alpha[part]}, **geometry(window, True))
        inputs = {"X": x[part], **branch(5, window)}
        return run(operator, inputs, **geometry(window, True), **CLIP)

    together = pooled(slice(8))
    for index in range(8):
        np.testing.assert_array_equal(pooled(slice(index, index + 1))[0], together[index])


def some_logits(classes: int) -> st.SearchStrategy[Array]:
    shape = st.tuples(
        st.integers(1, 2), st.integers(1, classes), st.integers(1, 6), st.integers(1, 6)
    )
    return st_numpy.arrays(np.float32, shape, elements=st.floats(-4, 4, width=16))


@given(
    logits=some_logits(5),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
@quick
def test_resize_argmax_equals_the_reference(run: Run, logits: Array, size: tuple[int, int]) -> None:
    found = run("ResizeArgMax", {"logits": logits, "size": np.array(size)})
    expected = resize_argmax_reference(logits, size)
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    # Where they differ, both classes must be as good as each other but for float32 rounding.
    for n, row, column in zip(*np.nonzero(found != expected), strict=True):
        values = [
            resize_one(logits[n, label[n, row, column]], size, row, column)
            for label in (found, expected)
        ]
        assert abs(values[0] - values[1]) < 1e-5


@given(
    logits=some_logits(6),
    between=st.tuples(st.integers(1, 15), st.integers(1, 15)),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
)
@quick
def test_resizing_twice_equals_the_reference(
    run: Run, logits: Array, between: tuple[int, int], size: tuple[int, int]
) -> None:
    sizes = {"between": np.array(between), "size": np.array(size)}
    found = run("ResizeTwiceArgMax", {"logits": logits, **sizes})
    assert found.dtype == np.uint8
    assert found.shape == (len(logits), *size)
    assert_largest(found, logits, size, between)


@given(
    logits=st_numpy.arrays(
        np.float32,
        st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 4), st.integers(1, 150)),
        elements=st.floats(-4, 4, width=16),
    )
)
@quick
def test_labels_as_large_as_the_logits_are_the_first_largest(run: Run, logits: Array) -> None:
    found = run("ResizeArgMax", {"logits": logits, "size": np.array(logits.shape[2:])})
    np.testing.assert_array_equal(found, logits.argmax(axis=1))


@given(
    logits=st_numpy.arrays(
        np.float32,
        st.tuples(st.just(2), st.integers(1, 5), st.integers(1, 3), st.integers(1, 150)),
        elements=st.floats(-4, 4, width=16),
    ),
    side=st.integers(1, 3),
    size=st.tuples(st.integers(1, 20), st.integers(1, 330)) | st.none(),
)
@quick
def test_logits_of_blocks_are_labelled_as_those_of_pixels(
    run: Run, logits: Array, side: int, size: tuple[int, int] | None
) -> None:
    pixels = logits.repeat(side, 2).repeat(side, 3)
    pixels += np.random.default_rng(0).random(pixels.shape, np.float32).round(2)
    n, classes, height, width = pixels.shape
    cells = pixels.reshape(n, classes, height // side, side, width // side, side)
    wanted = np.array(size or (height, width))
    found = run("ResizeArgMax", {"logits": cells.transpose(0, 1, 3, 5, 2, 4), "size": wanted})
    np.testing.assert_array_equal(found, run("ResizeArgMax", {"logits": pixels, "size": wanted}))


@pytest.mark.parametrize(("classes", "size"), [(257, (13, 70)), (1000, (5, 9)), (40000, (3, 2))])
def test_more_than_256_classes_are_labelled_in_16_bits(
    run: Run, classes: int, size: tuple[int, int]
) -> None:
    logits = np.random.default_rng(classes).normal(size=(2, classes, 5, 9)).astype(np.float32)
    logits[:, -1] += 2
    assert resize_argmax_for(classes) == "ResizeArgMax16"
    found = run("ResizeArgMax16", {"logits": logits, "size": np.array(size)})
    expected = resize_argmax_reference(logits, size)
    assert found.dtype == expected.dtype == np.uint16
    assert found.max() > 255
    for n, row, column in zip(*np.nonzero(found != expected), strict=True):
        values = [
            resize_one(logits[n, label[n, row, column]], size, row, column)
            for label in (found, expected)
        ]
        assert abs(values[0] - values[1]) < 1e-5


def resize_one(plane: Array, size: tuple[int, int], row: int, column: int) -> float:
    """Half-pixel bilinear value of one pixel, in float64."""
    taps = []
    for target, length, place in zip(size, plane.shape, (row, column), strict=True):
        position = np.clip((place + 0.5) * length / target - 0.5, 0, length - 1)
        taps.append(np.maximum(1 - np.abs(np.arange(length) - position), 0))
    return float(taps[0] @ plane.astype(np.float64) @ taps[1])


def test_a_node_without_its_attributes_is_refused_by_the_checker() -> None:
    graph = helper.make_graph(
        [helper.make_node("PPool", ["X", "alpha"], ["Y"], domain=DOMAIN, kernel_shape=[2, 2])],
        "g",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4)
            for name in ("X", "alpha")
        ],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None] * 4)],
    )
    opsets = [helper.make_opsetid("", ONNX_OPSET), helper.make_opsetid(DOMAIN, OPSET)]
    with pytest.raises(onnx.checker.ValidationError, match="plugin_namespace"):
        onnx.checker.check_model(helper.make_model(graph, opset_imports=opsets), full_check=True)
