"""The native library's ONNX Runtime operators, through real sessions, against the reference."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ppool.reference import alpha_reference, ppool2d_reference, resize_argmax_reference
from ppool.window import Window
from tests.native.entries import needs_library, stored, wide
from tests.native.models import (
    native_session,
    ppool_model,
    resize_model,
    resize_twice_model,
    unit_model,
)
from tests.windows import TOLERANCE, Case, assert_largest, cases, scale_of

pytestmark = needs_library

SQUARE = Window.of(2)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
Feeds = dict[str, NDArray[np.float64]]
Size = tuple[int, int]


def run(session: ort.InferenceSession, feeds: Any) -> list[NDArray[Any]]:
    outputs: list[NDArray[Any]] = session.run(None, feeds)
    return outputs


def unit_feeds(
    x: NDArray[np.float64], window: Window, dtype: str, rng: np.random.Generator
) -> Feeds:
    """Inputs of a unit whose exponents vary over most of their range."""
    channels = x.shape[1]
    spread = 1 / (100 * max(float(np.abs(x).max(initial=0)), 1e-6))
    feeds = {
        "x": x,
        "w_region": rng.normal(size=(channels, 1, *window.kernel)) * spread,
        "prelu_slope": rng.uniform(-0.5, 0.5, channels),
        "w_point": rng.normal(size=channels) * 5,
        "b_point": rng.uniform(-5, 40, channels),
    }
    return {name: wide(stored(value, dtype)) for name, value in feeds.items()}


@every_dtype
@settings(max_examples=25, deadline=None)
@given(case=cases(extreme=False))
def test_ppool_equals_the_reference(case: Case, dtype: str) -> None:
    x, alpha = wide(stored(case.x, dtype)), wide(stored(case.alpha, dtype))
    session = native_session(ppool_model(dtype, case.window, case.signed), threads=2)
    (y,) = run(session, {"x": x, "alpha": alpha})
    expected = ppool2d_reference(x, alpha, *case.arguments, signed=case.signed)
    assert y.shape == expected.shape
    assert np.abs(y - expected).max(initial=0) <= TOLERANCE[dtype] * scale_of(case)


@every_dtype
@settings(max_examples=25, deadline=None)
@given(case=cases(extreme=False), seed=st.integers(0, 2**32 - 1))
def test_the_unit_equals_the_reference(case: Case, seed: int, dtype: str) -> None:
    feeds = unit_feeds(case.x, case.window, dtype, np.random.default_rng(seed))
    session = native_session(unit_model(dtype, case.window, signed=case.signed))
    (y,) = run(session, feeds)
    lowest = float(np.float32(1e-4))  # as an ONNX attribute holds it
    expected_alpha = alpha_reference(*feeds.values(), *case.arguments, alpha_min=lowest)
    expected = ppool2d_reference(feeds["x"], expected_alpha, *case.arguments, signed=case.signed)
    assert np.abs(y - expected).max(initial=0) <= TOLERANCE[dtype] * scale_of(case)


def test_a_large_input_does_not_overflow_through_the_input_scale() -> None:
    feeds = {name: np.ones(1) for name in ("prelu_slope", "w_point", "b_point")}
    feeds |= {"x": np.full((1, 1, 2, 2), 1e37), "w_region": np.zeros((1, 1, 2, 2))}
    (y,) = run(native_session(unit_model("float32", SQUARE)), feeds)
    assert y.item() == pytest.approx(1e37)


def test_nan_in_the_side_branch_stays_nan(rng: np.random.Generator) -> None:
    feeds = unit_feeds(rng.random((1, 2, 4, 4)), SQUARE, "float32", rng)
    feeds["b_point"][1] = np.nan
    (y,) = run(native_session(unit_model("float32", SQUARE)), feeds)
    assert np.isnan(y[:, 1]).all()
    assert np.isfinite(y[:, 0]).all()


@every_dtype
@pytest.mark.parametrize("signed", [False, True])
def test_one_image_is_the_same_alone_in_a_batch_and_on_more_threads(
    signed: bool, dtype: str, rng: np.random.Generator
) -> None:
    window = Window.of(3, 2, 1)
    feeds = unit_feeds(rng.normal(size=(4, 5, 61, 67)), window, dtype, rng)
    proto = unit_model(dtype, window, signed=signed)
    single, several = native_session(proto), native_session(proto, threads=3)
    together = run(single, feeds)
    for first, second in zip(together, run(several, feeds), strict=True):
        assert np.array_equal(first, second)
    for image in range(4):
        one = slice(image, image + 1)
        for alone, batch in zip(run(single, feeds | {"x": feeds["x"][one]}), together, strict=True):
            assert np.array_equal(alone, batch[one])


def top_gap(logits: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """How far the best of two classes leads at every resized pixel."""
    gaps = np.empty((len(logits), *size))
    for n, image in enumerate(logits):
        for row in range(size[0]):
            for column in range(size[1]):
                y = min(max((row + 0.5) * image.shape[1] / size[0] - 0.5, 0), image.shape[1] - 1)
                x = min(max((column + 0.5) * image.shape[2] / size[1] - 0.5, 0), image.shape[2] - 1)
                corners = image[:, int(y) : int(y) + 2, int(x) : int(x) + 2]
                fy, fx = y - int(y), x - int(x)
                rows = corners[:, 0] * (1 - fy) + corners[:, -1] * fy
                values = np.sort(rows[:, 0] * (1 - fx) + rows[:, -1] * fx)
                gaps[n, row, column] = values[-1] - values[-2]
    return gaps


@every_dtype
@settings(max_examples=25, deadline=None)
@given(
    classes=st.integers(2, 7),
    source=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    seed=st.integers(0, 2**32 - 1),
)
def test_resize_argmax_equals_the_reference_wherever_a_class_leads(
    classes: int, source: tuple[int, int], size: tuple[int, int], seed: int, dtype: str
) -> None:
    rng = np.random.default_rng(seed)
    logits = wide(stored(rng.normal(size=(2, classes, *source)), dtype))
    (labels,) = run(native_session(resize_model(dtype)), {"logits": logits, "size": np.array(size)})
    expected = resize_argmax_reference(logits, size)
    assert labels.dtype == np.uint8
    assert labels.shape == (2, *size)
    assert (labels == expected)[top_gap(logits, size) > 1e-5].all()


@every_dtype
@pytest.mark.parametrize("side", [2, 3])
@pytest.mark.parametrize("size", [None, (131, 277), (9, 20)])
def test_logits_of_blocks_are_labelled_as_those_of_pixels(
    dtype: str, side: int, size: tuple[int, int] | None
) -> None:
    pixels = np.random.default_rng(side).normal(size=(2, 7, 4 * side, 29 * side))
    feeds = {"size": np.array(size or pixels.shape[2:])}
    cells = pixels.reshape(2, 7, 4, side, 29, side).transpose(0, 1, 3, 5, 2, 4)
    (expected,) = run(native_session(resize_model(dtype)), feeds | {"logits": pixels})
    session = native_session(resize_model(dtype, in_blocks=True))
    assert np.array_equal(run(session, feeds | {"logits": cells})[0], expected)


# Both times larger, smaller and as large, of one row, of many columns for one, and of few classes.
TWICE = [
    ((2, 7, 9, 11), (18, 22), (31, 45)),
    ((1, 21, 16, 40), (64, 160), (97, 70)),
    ((2, 9, 8, 8), (16, 16), (16, 16)),
    ((1, 6, 30, 50), (15, 20), (60, 50)),
    ((1, 5, 1, 3), (2, 300), (5, 170)),
    ((2, 3, 5, 150), (10, 300), (7, 4)),
    ((1, 256, 3, 3), (3, 3), (9, 70)),
]


@every_dtype
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("shape", "between", "size"), TWICE)
def test_logits_are_resized_twice_as_one_after_the_other(
    dtype: str, threads: int, shape: tuple[int, ...], between: Size, size: Size
) -> None:
    # Wide areas of one class, where nothing is interpolated, and edges of noise.
    rng = np.random.default_rng(shape[1])
    logits = rng.normal(size=shape)
    logits[..., : shape[3] // 2] += 8 * np.eye(shape[1])[0][:, None, None]
    logits = wide(stored(logits, dtype))
    session = native_session(resize_twice_model(dtype), threads)
    feeds = {"logits": logits, "between": np.array(between), "size": np.array(size)}
    (labels,) = run(session, feeds)
    assert labels.dtype == np.uint8
    assert labels.shape == (shape[0], *size)
    assert len(np.unique(resize_argmax_reference(logits, size, between))) > 1
    assert_largest(labels, logits, size, between)
    for image in range(shape[0]):
        (alone,) = run(session, feeds | {"logits": logits[image : image + 1]})
        assert np.array_equal(alone[0], labels[image])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"logits": np.zeros((1, 3, 2, 2, 5, 5))}, r"logits: expected \[N, K, h, w\]"),
        ({"logits": np.zeros((1, 257, 5, 5))}, "logits: expected 1 to 256 classes"),
        ({"logits": np.zeros((1, 3, 0, 5))}, "logits: expected at least one pixel"),
        ({"between": np.array([0, 9])}, "between: expected 1 or more"),
        ({"size": np.array([9, -1])}, "size: expected 0 or more"),
    ],
)
def test_what_cannot_be_resized_twice_is_refused(changed: dict[str, Any], message: str) -> None:
    feeds = {
        "logits": np.zeros((1, 3, 5, 5)),
        "between": np.array([9, 9]),
        "size": np.array([9, 9]),
    }
    proto = resize_twice_model("float32")
    proto.graph.input[0].ClearField("type")
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    with pytest.raises(Exception, match=message):
        run(native_session(proto), feeds | changed)


def test_blocks_that_are_not_square_are_refused() -> None:
    session = native_session(resize_model("float32", in_blocks=True))
    feeds = {"logits": np.zeros((1, 3, 2, 4, 5, 5)), "size": np.array([9, 9])}
    with pytest.raises(Exception, match=r"logits: expected \[N, K, h, w\] or \[N, K, s, s, h, w\]"):
        run(session, feeds)


@every_dtype
def test_resize_argmax_gives_a_tie_to_the_first_class(dtype: str) -> None:
    logits = np.zeros((1, 256, 3, 3))
    logits[:, 100:] = 2.5
    session = native_session(resize_model(dtype))
    (labels,) = run(session, {"logits": logits, "size": np.array([7, 300])})
    assert (labels == 100).all()


def test_resize_argmax_is_the_same_alone_in_a_batch_and_on_more_threads(
    rng: np.random.Generator,
) -> None:
    feeds = {"logits": rng.normal(size=(3, 21, 17, 19)), "size": np.array([131, 277])}
    single = native_session(resize_model("float32"))
    (together,) = run(single, feeds)
    (threaded,) = run(native_session(resize_model("float32"), threads=3), feeds)
    assert np.array_equal(threaded, together)
    for image in range(3):
        (alone,) = run(single, feeds | {"logits": feeds["logits"][image : image + 1]})
        assert np.array_equal(alone, together[image : image + 1])


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4)])
def test_an_empty_input_gives_an_empty_output(shape: tuple[int, ...]) -> None:
    feeds = unit_feeds(np.zeros(shape), SQUARE, "float32", np.random.default_rng(0))
    (y,) = run(native_session(unit_model("float32", SQUARE)), feeds)
    assert y.shape == (*shape[:2], 2, 2)


def test_static_sizes_are_inferred_and_unknown_ones_keep_a_name() -> None:
    window = Window.of(3, 2, 1)
    static = native_session(unit_model("float16", window, shape=(2, 3, 9, 11)))
    assert [output.shape for output in static.get_outputs()] == [[2, 3, 5, 6]]
    dynamic = native_session(unit_model("float16", window)).get_outputs()[0].shape
    assert dynamic[:2] == ["N", "C"]
    assert dynamic[2] != dynamic[3]
    assert all(isinstance(name, str) for name in dynamic)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kernel_shape": [2]}, r"kernel_shape: expected 2 ints, got \[2\]"),
        ({"kernel_shape": [0, 2]}, r"kernel_shape: expected at least 1, got \[0, 2\]"),
        ({"strides": [2, 0]}, r"strides: expected at least 1, got \[2, 0\]"),
        ({"dilations": [1, -1]}, r"dilations: expected at least 1, got \[1, -1\]"),
        ({"pads": [2, 0, 2, 0]}, r"pads: expected 0 to half of kernel_shape"),
        ({"pads": [0, 0, 0, 1]}, r"pads: expected the same at both ends"),
        ({"alpha_min": 36.0}, r"alpha_min: expected at most alpha_max"),
        ({"ceil_mode": "yes"}, r"ceil_mode"),
        ({"strides": None}, r"strides"),
    ],
)
def test_a_bad_attribute_is_an_exception_that_names_it(
    changed: dict[str, Any], message: str
) -> None:
    proto = unit_model("float32", SQUARE, **changed)
    with pytest.raises(Exception, match=message):  # the binding has no common public class
        native_session(proto)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": np.zeros((1, 2, 1, 4))}, r"X: expected a size that the window fits in"),
        ({"w_region": np.zeros((3, 1, 2, 2))}, r"w_region: expected shape \[2, 1, 2, 2\]"),
        ({"b_point": np.zeros(3)}, r"b_point: expected shape \[2\], got \[3\]"),
    ],
)
def test_inputs_that_do_not_fit_together_are_an_exception(
    changed: Feeds, message: str, rng: np.random.Generator
) -> None:
    feeds = unit_feeds(rng.random((1, 2, 4, 4)), SQUARE, "float32", rng)
    # Fixed parameter sizes would let ONNX Runtime refuse first; "P" and "R" leave them free.
    session = native_session(unit_model("float32", SQUARE))
    with pytest.raises(Exception, match=message):
        run(session, feeds | changed)


@pytest.mark.parametrize(
    ("logits", "size", "message"),
    [
        ((1, 257, 2, 2), [4, 4], r"1 to 256 classes"),
        ((1, 0, 2, 2), [4, 4], r"1 to 256 classes"),
        ((1, 3, 0, 2), [4, 4], r"at least one pixel"),
        ((1, 3, 2, 2), [-1, 4], r"size: expected 0 or more, got \[-1, 4\]"),
    ],
)
def test_a_bad_resize_is_an_exception(
    logits: tuple[int, ...], size: list[int], message: str
) -> None:
    session = native_session(resize_model("float32"))
    with pytest.raises(Exception, match=message):
        run(session, {"logits": np.zeros(logits), "size": np.array(size)})
