"""Small networks of every odd kind, as strangers export them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.service.odd_files import FILES
from tests.service.odd_models import (
    BYTES,
    DOUBLE,
    FIRST,
    FLOAT,
    HALF,
    INT32,
    INT64,
    LAST,
    RAW,
    SCALES,
    SIGMOID,
    TO_LAST,
    UINT8,
    WHITE,
    arg_max,
    cast_labels,
    constants_as_inputs,
    from_black_to_white,
    in_grey,
    oddly_named,
    old_operators,
    renamed,
    resized,
    unsorted,
    with_branch,
    with_function,
    with_functions_of_functions,
    with_sizes,
)
from tests.service.zoo import (
    IMAGENET,
    MEAN,
    STD,
    Kept,
    Net,
    above,
    as_type,
    caffe,
    from_minus_one,
    grey,
    half_grey,
    largest,
    last_largest,
    nchw,
    nearest,
    nhwc,
    node,
    overlapping,
    raw,
    raw_last,
)


def case(name: str) -> Callable[[Path], Path]:
    return lambda _: Path(__file__).parents[1] / "export" / "cases" / f"{name}.onnx"


def options(**more: Any) -> dict[str, Any]:
    return {**IMAGENET, **more}


FIXED = (64, 96)
ZOO = [
    Kept("plain", Net()()),
    Kept("channels last in", Net(before=FIRST, sizes=LAST)(), feed=nhwc),
    Kept("channels last out", Net(after=TO_LAST, output="y")(), read=last_largest),
    Kept(
        "channels last",
        Net(before=FIRST, sizes=LAST, after=TO_LAST, output="y")(),
        feed=nhwc,
        read=last_largest,
    ),
    Kept("bytes", Net(before=BYTES, constants=WHITE, given=UINT8)(), RAW, raw),
    Kept(
        "bytes last",
        Net(
            before=[
                node("Transpose", ["x"], "first", perm=[0, 3, 1, 2]),
                node("Cast", ["first"], "float", to=FLOAT),
                node("Div", ["float", "white"], "ready"),
            ],
            constants=WHITE,
            given=UINT8,
            sizes=LAST,
        )(),
        RAW,
        raw_last,
    ),
    Kept(
        "whole numbers",
        Net(before=BYTES, constants=WHITE, given=INT32)(),
        RAW,
        as_type(np.int32, raw),
    ),
    Kept(
        "normalised inside",
        Net(
            before=[
                node("Sub", ["x", "mean"], "centred"),
                node("Div", ["centred", "std"], "ready"),
            ],
            constants={
                "mean": np.array(MEAN, np.float32).reshape(1, 3, 1, 1),
                "std": np.array(STD, np.float32).reshape(1, 3, 1, 1),
            },
        )(),
        {"mean": (0,), "std": (1,), "scale": 1},
        from_black_to_white,
    ),
    Kept("Caffe's BGR", Net()(), {"preset": "caffe"}, caffe),
    Kept("from -1 to 1", Net()(), {"preset": "tf"}, from_minus_one),
    Kept("0 to 255", Net()(), RAW, as_type(np.float32, raw)),
    Kept(
        "grey",
        Net(channels=1, sizes=("n", 1, "h", "w"))(),
        {"mean": (0.5,), "std": (0.5,), "channels": "grey"},
        half_grey,
    ),
    Kept(
        "grey bytes",
        Net(channels=1, before=BYTES, constants=WHITE, given=UINT8, sizes=("n", 1, "h", "w"))(),
        {"mean": (0,), "std": (1,), "channels": "grey", "scale": 255},
        grey,
    ),
    Kept("float16", Net(dtype=HALF)(), feed=as_type(np.float16), allowed=1e-2),
    Kept(
        "float64",
        Net(before=[node("Cast", ["x"], "ready", to=FLOAT)], given=DOUBLE)(),
        feed=as_type(np.float64),
    ),
    Kept("one size", Net(sizes=(1, 3, *FIXED))(), size=FIXED),
    Kept("one size, any batch", Net(sizes=("n", 3, *FIXED))(), size=FIXED),
    Kept(
        "one size, channels last",
        Net(before=FIRST, sizes=(1, *FIXED, 3), after=TO_LAST, output="y")(),
        feed=nhwc,
        read=last_largest,
        size=FIXED,
    ),
    Kept(
        "one size, enlarged inside",
        Net(
            sizes=(1, 3, *FIXED),
            after=resized(mode="linear", coordinate_transformation_mode="half_pixel"),
            output="y",
            constants=SCALES,
        )(),
        size=FIXED,
    ),
    Kept("stretched", Net()(), options(size=(96, 64)), size=(96, 64)),
    Kept("stretched, bicubic", Net()(), options(size=(96, 64), resample="bicubic"), size=(96, 64)),
    Kept("one channel of logits", Net(classes=1)(), read=above(0)),
    Kept(
        "one channel of probabilities", Net(classes=1, after=SIGMOID, output="y")(), read=above(0.5)
    ),
    Kept(
        "a threshold of 0.3",
        Net(classes=1, after=SIGMOID, output="y")(),
        options(threshold=0.3),
        read=above(0.3),
    ),
    Kept(
        "no axis of channels",
        Net(
            classes=1,
            after=[node("Squeeze", ["score", "one"], "y")],
            output="y",
            constants={"one": np.array([1])},
        )(),
        read=above(0),
    ),
    Kept("one channel, last", Net(classes=1, after=TO_LAST, output="y")(), read=above(0)),
    Kept(
        "one channel, one size", Net(classes=1, sizes=(1, 3, *FIXED))(), read=above(0), size=FIXED
    ),
    Kept(
        "an axis of 1 more",
        Net(
            classes=1,
            after=[node("Unsqueeze", ["score", "one"], "y")],
            output="y",
            constants={"one": np.array([1])},
        )(),
        read=above(0),
    ),
    Kept(
        "black and white",
        in_grey(
            node("Greater", ["score", "zero"], "more"), node("Cast", ["more"], "share", to=FLOAT)
        ),
        read=above(127.499),
    ),
    Kept("levels of grey", in_grey(node("Sigmoid", ["score"], "share")), read=above(127.499)),
    Kept("softmax inside", Net(after=[node("Softmax", ["score"], "y", axis=1)], output="y")()),
    Kept("sigmoids", Net(after=SIGMOID, output="y")()),
    Kept("overlapping logits", Net()(), options(head="multilabel"), read=overlapping(0)),
    Kept(
        "overlapping probabilities",
        Net(after=SIGMOID, output="y")(),
        options(head="multilabel", threshold=0.6),
        read=overlapping(0.6),
    ),
    Kept("labels", Net(stride=1, after=arg_max(), output="y", gives=INT64)(), read=nearest),
    Kept("coarse labels", Net(after=arg_max(), output="y", gives=INT64)(), read=nearest),
    Kept(
        "labels, int32",
        Net(after=cast_labels(INT32, keep=1), output="y", gives=INT32)(),
        read=nearest,
    ),
    Kept("labels, bytes", Net(after=cast_labels(UINT8), output="y", gives=UINT8)(), read=nearest),
    Kept(
        "labels, floats",
        Net(after=cast_labels(FLOAT, keep=1), output="y", gives=FLOAT)(),
        read=nearest,
    ),
    Kept(
        "labels, one size",
        Net(sizes=(1, 3, *FIXED), after=arg_max(keep=1), output="y", gives=INT64)(),
        read=nearest,
        size=FIXED,
    ),
    Kept(
        # Of 361 rows the middle one lies between two of them.
        "labels, one size, between rows",
        Net(sizes=(1, 3, 240, 64), after=arg_max(), output="y", gives=INT64)(),
        read=nearest,
        size=(240, 64),
    ),
    Kept(
        "labels, channels last",
        Net(
            after=[
                *TO_LAST[:0],
                node("Transpose", ["score"], "last", perm=[0, 2, 3, 1]),
                node("ArgMax", ["last"], "y", axis=3, keepdims=1),
            ],
            output="y",
            gives=INT64,
        )(),
        read=nearest,
    ),
    Kept("opset 7", old_operators(7)),
    Kept("opset 8", old_operators(8)),
    Kept("opset 9", old_operators(9)),
    Kept(
        "opset 10",
        Net(
            opset=10,
            ir=5,
            after=[node("Resize", ["score", "scales"], "y", mode="nearest")],
            output="y",
            constants=SCALES,
        )(),
    ),
    Kept(
        "opset 11, labels",
        Net(opset=11, ir=6, after=arg_max(), output="y", gives=INT64)(),
        read=nearest,
    ),
    Kept(
        "opset 12",
        Net(opset=12, ir=7, after=[node("Softmax", ["score"], "y", axis=1)], output="y")(),
    ),
    Kept("opset 22", Net(opset=22, ir=10)()),
    Kept(
        "corners aligned",
        Net(
            after=resized(mode="linear", coordinate_transformation_mode="align_corners"),
            output="y",
            constants=SCALES,
        )(),
    ),
    Kept(
        "a last resize, fused",
        Net(
            after=resized(mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
            output="y",
            constants=SCALES,
        )(),
    ),
    Kept("cubic", Net(after=resized(mode="cubic"), output="y", constants=SCALES)()),
    Kept("sizes of -1", with_sizes((-1, 3, -1, -1), Net()())),
    Kept("sizes of 0", with_sizes((0, 3, 0, 0), Net()())),
    Kept("no shape", Net(sizes=None)()),
    Kept("unsorted", unsorted(Net()())),
    Kept("constants as inputs", constants_as_inputs(Net(opset=8)())),
    Kept("our own names", renamed(Net()())),
    Kept("odd names", oddly_named()),
    Kept("a branch", with_branch()),
    Kept("a function", with_function()),
    Kept("functions of functions", with_functions_of_functions()),
    Kept("no padding", Net(pad=0)()),
    Kept("stride 8", Net(stride=8)()),
    Kept("stride 32", Net(stride=32)()),
    Kept("many classes", Net(classes=150)()),
    Kept("two classes", Net(classes=2)()),
    Kept(
        "no axis of photos",
        Net(
            sizes=(3, "h", "w"),
            before=[node("Unsqueeze", ["x", "zero"], "ready")],
            after=[node("Squeeze", ["score", "zero"], "y")],
            output="y",
            constants={"zero": np.array([0])},
        )(),
        feed=lambda image: nchw(image)[0],
        read=lambda output, size: largest(output[None], size),
    ),
    Kept(
        "several outputs",
        Net(after=SIGMOID, output="score", more=[("y", FLOAT)])(),
        options(output="score"),
    ),
    Kept("asymmetric Upsample", case("up9_linear")),
    Kept("asymmetric Resize", case("rs10_linear")),
    Kept("an axis of 1 inside", case("se_batch1")),
    *FILES,
]
