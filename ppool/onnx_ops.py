"""The ONNX operators of domain ``ai.ppool``: schemas, and bodies in standard ONNX operators.

A runtime with the native library uses its kernels; any other inlines these bodies, which give the
same answer. Every setting is an attribute reference, so one body serves every window.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx.defs import OpSchema

__all__ = [
    "DOMAIN",
    "ONNX_OPSET",
    "OPSET",
    "PLUGIN_ATTRIBUTES",
    "RESIZE_ATTRIBUTES",
    "RESIZE_OPERATORS",
    "function_bodies",
    "register_schemas",
    "resize_argmax_for",
]

DOMAIN = "ai.ppool"
OPSET = 1
# Standard operators of the bodies; a model that carries them must import the same version.
ONNX_OPSET = 20
# With these on the node TensorRT's parser prefers the plugin of this name, when it is loaded, to
# the function body (onnx-tensorrt, ModelImporter.cpp, parseNode).
PLUGIN_ATTRIBUTES = {"plugin_namespace": DOMAIN, "plugin_version": "1"}
# The plugin's output size is a value, not a shape: TensorRT's parser must be told which input that
# is (onnx-tensorrt, release notes of 10.1).
SHAPE_INPUTS = "tensorrt_plugin_shape_input_indices"
RESIZE_ATTRIBUTES: dict[str, Any] = PLUGIN_ATTRIBUTES | {SHAPE_INPUTS: [1]}
# What makes labels, by ONNX's number of their type: uint8, and uint16 for what that cannot hold.
RESIZE_OPERATORS = {"ResizeArgMax": 2, "ResizeArgMax16": 4}

_INT, _INTS = OpSchema.AttrType.INT, OpSchema.AttrType.INTS
_FLOAT, _STRING = OpSchema.AttrType.FLOAT, OpSchema.AttrType.STRING
_WINDOW = {
    "kernel_shape": _INTS,
    "strides": _INTS,
    "pads": _INTS,
    "dilations": _INTS,
    "ceil_mode": _INT,
    "signed": _INT,
}
# num_outputs is always 1: version 0.1 could be asked for alpha as well, and its plugins read it.
_BRANCH = {"input_scale": _FLOAT, "alpha_min": _FLOAT, "alpha_max": _FLOAT, "num_outputs": _INT}


def resize_argmax_for(classes: int) -> str:
    """The operator that makes labels of so many classes."""
    return "ResizeArgMax" if classes <= 256 else "ResizeArgMax16"


def _schema(
    name: str,
    inputs: dict[str, str],
    outputs: dict[str, str],
    attributes: dict[str, OpSchema.AttrType],
    doc: str,
) -> OpSchema:
    """A schema whose inputs, outputs and attributes are all required."""
    return OpSchema(
        name,
        DOMAIN,
        OPSET,
        doc,
        inputs=[OpSchema.FormalParameter(*entry) for entry in inputs.items()],
        outputs=[OpSchema.FormalParameter(*entry) for entry in outputs.items()],
        type_constraints=[
            ("T", ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"], "storage type")
        ],
        attributes=[
            # Files of version 0.1 have no SHAPE_INPUTS.
            OpSchema.Attribute(key, kind, "", required=key != SHAPE_INPUTS)
            for key, kind in (attributes | dict.fromkeys(PLUGIN_ATTRIBUTES, _STRING)).items()
        ],
    )


def register_schemas() -> None:
    """Make the operators known to ``onnx``, and so to the checker and to PyTorch's exporter.

    Wei et al., CVPR 2019: ``PPool`` is Eq. 1 and 2 with the exponents given, ``PPoolUnit`` the
    whole of Figure 1; ``ResizeArgMax`` turns logits into labels, ``ResizeArgMax16`` those of more
    than 256 classes, ``ResizeTwiceArgMax`` those that are resized to another size before. Calling
    it again does nothing.
    """
    for schema in (
        _schema("PPool", {"X": "T", "alpha": "T"}, {"Y": "T"}, _WINDOW, "Polynomial pooling."),
        _schema(
            "PPoolUnit",
            dict.fromkeys(("X", "w_region", "prelu_slope", "w_point", "b_point"), "T"),
            {"Y": "T"},
            _WINDOW | _BRANCH,
            "Polynomial pooling with the exponents of its side branch.",
        ),
        *(
            _schema(
                name,
                {"logits": "T", "size": "tensor(int64)"},
                {"labels": f"tensor({labels})"},
                {SHAPE_INPUTS: _INTS},
                "Half-pixel bilinear resize of [N, K, h, w] to size, then argmax over K. Those of "
                "blocks of s x s pixels may come as a shuffle takes them, [N, K, s, s, h, w].",
            )
            for name, labels in zip(RESIZE_OPERATORS, ("uint8", "uint16"), strict=True)
        ),
        _schema(
            "ResizeTwiceArgMax",
            {"logits": "T", "between": "tensor(int64)", "size": "tensor(int64)"},
            {"labels": "tensor(uint8)"},
            {},
            "Half-pixel bilinear resize of [N, K, h, w] to between, [H', W'], and of that to size, "
            "then argmax over K.",
        ),
    ):
        if not onnx.defs.has(schema.name, schema.domain):
            onnx.defs.register_schema(schema)


# Along one axis: the input pixel that each tap of each window reads, [kernel, pooled].
_AXIS = """
    index_{a} = Constant <value_int = {index}> ()
    kernel_{a} = Gather (kernel, index_{a})
    stride_{a} = Gather (strides, index_{a})
    dilation_{a} = Gather (dilations, index_{a})
    pad_{a} = Gather (pads, index_{a})
    in_{a} = Gather (in_size, index_{a})
    out_{a} = Gather (out_size, index_{a})
    tap_{a} = Range (zero, kernel_{a}, one)
    offset_{a} = Mul (tap_{a}, dilation_{a})
    window_{a} = Range (zero, out_{a}, one)
    corner_{a} = Mul (window_{a}, stride_{a})
    start_{a} = Sub (corner_{a}, pad_{a})
    offset_column_{a} = Unsqueeze (offset_{a}, axis_1)
    read_{a} = Add (offset_column_{a}, start_{a})
    not_before_{a} = GreaterOrEqual (read_{a}, zero)
    not_after_{a} = Less (read_{a}, in_{a})
    inside_{a} = And (not_before_{a}, not_after_{a})
    safe_{a} = Where (inside_{a}, read_{a}, zero)
"""

_CONSTANTS = """
    kernel = Constant <value_ints: ints = @kernel_shape> ()
    strides = Constant <value_ints: ints = @strides> ()
    dilations = Constant <value_ints: ints = @dilations> ()
    pads = Constant <value_ints: ints = @pads> ()
    signed = Constant <value_int: int = @signed> ()
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    axis_0 = Constant <value_ints = [0]> ()
    axis_1 = Constant <value_ints = [1]> ()
    axis_2 = Constant <value_ints = [2]> ()
    row_axes = Constant <value_ints = [1, 3]> ()
    column_axes = Constant <value_ints = [0, 2]> ()
    rest = Constant <value_ints = [-1]> ()
    zero_float = Constant <value_float = 0.0> ()
    one_float = Constant <value_float = 1.0> ()
    x = Cast <to = 1> (X)
    in_size = Shape <start = 2> (X)
    planes = Shape <end = 2> (X)
"""

# out_size -> windows [N, C, kernel, pooled] with 0 outside the image; inside [kernel, pooled].
_WINDOWS = f"""
    {_AXIS.format(a="h", index=0)}
    {_AXIS.format(a="w", index=1)}
    rows = Unsqueeze (safe_h, row_axes)
    columns = Unsqueeze (safe_w, column_axes)
    row_begin = Mul (rows, in_w)
    pixel_4d = Add (row_begin, columns)
    rows_inside = Unsqueeze (inside_h, row_axes)
    columns_inside = Unsqueeze (inside_w, column_axes)
    inside_4d = And (rows_inside, columns_inside)
    taps = ReduceProd (kernel)
    taps_by_rest = Concat <axis = 0> (taps, rest)
    pixel = Reshape (pixel_4d, taps_by_rest)
    inside = Reshape (inside_4d, taps_by_rest)
    plane_pixels = ReduceProd <keepdims = 1> (in_size)
    flat_shape = Concat <axis = 0> (planes, plane_pixels)
    x_flat = Reshape (x, flat_shape)
    read = Gather <axis = 2> (x_flat, pixel)
    windows = Where (inside, read, zero_float)
    out_shape = Concat <axis = 0> (planes, out_size)
    out_pixels = ReduceProd (out_size)
    map_shape = Concat <axis = 0> (planes, axis_1, out_pixels)
"""

# windows, inside, exponent [N, C, 1, pooled] -> Y: Eq. 2, then Eq. 1 relative to the largest.
# Unsigned pooling looks for its minimum in one pixel only, and then does not use it.
_POOL = """
    last_pixel = Sub (plane_pixels, axis_1)
    last_searched = Mul (signed, last_pixel)
    searched_end = Add (last_searched, axis_1)
    searched = Slice (x_flat, axis_0, searched_end, axis_2)
    is_nan = IsNaN (searched)
    numbers = Where (is_nan, zero_float, searched)
    not_positive = Min (numbers, zero_float)
    plane_minimum = ReduceMin <keepdims = 1> (not_positive, axis_2)
    is_signed = Cast <to = 9> (signed)
    offset_flat = Where (is_signed, plane_minimum, zero_float)
    offset = Unsqueeze (offset_flat, axis_2)
    shifted = Sub (windows, offset)
    is_negative = Less (shifted, zero_float)
    is_zero = Not (inside)
    counts_as_zero = Or (is_negative, is_zero)
    values = Where (counts_as_zero, zero_float, shifted)

    largest = ReduceMax <keepdims = 1> (values, axis_2)
    is_positive = Greater (largest, zero_float)
    divisor = Where (is_positive, largest, one_float)
    share = Div (values, divisor)
    is_largest = Equal (values, divisor)
    ratio = Where (is_largest, one_float, share)
    power = Pow (ratio, exponent)
    weight = Where (inside, power, zero_float)
    weighted = Mul (weight, ratio)
    numerator = ReduceSum <keepdims = 1> (weighted, axis_2)
    total = ReduceSum <keepdims = 1> (weight, axis_2)
    denominator = Where (is_positive, total, one_float)
    mean_ratio = Div (numerator, denominator)
    pooled = Mul (mean_ratio, largest)
    exponent_is_nan = IsNaN (exponent)
    pooled_or_nan = Where (exponent_is_nan, exponent, pooled)
    y_flat = Add (pooled_or_nan, offset)
    y = Reshape (y_flat, out_shape)
    Y = CastLike (y, X)
"""

_PPOOL = f"""
PPool <kernel_shape, strides, pads, dilations, ceil_mode, signed> (X, alpha) => (Y)
{{
    {_CONSTANTS}
    out_size = Shape <start = 2> (alpha)
    {_WINDOWS}
    exponent_4d = Cast <to = 1> (alpha)
    exponent = Reshape (exponent_4d, map_shape)
    {_POOL}
}}
"""

# The output size is that of torch.nn.MaxPool2d; alpha is Figure 1's branch on the same windows.
_PPOOL_UNIT = f"""
PPoolUnit <kernel_shape, strides, pads, dilations, ceil_mode, signed,
           input_scale, alpha_min, alpha_max, num_outputs>
    (X, w_region, prelu_slope, w_point, b_point) => (Y)
{{
    {_CONSTANTS}
    ceil_mode = Constant <value_int: int = @ceil_mode> ()
    axis_4 = Constant <value_ints = [4]> ()
    pad_begin = Slice (pads, axis_0, axis_2)
    pad_end = Slice (pads, axis_2, axis_4)
    kernel_steps = Sub (kernel, one)
    kernel_reach = Mul (kernel_steps, dilations)
    begin_padded = Add (in_size, pad_begin)
    padded = Add (begin_padded, pad_end)
    from_first = Sub (padded, kernel_reach)
    free = Sub (from_first, one)
    stride_slack = Sub (strides, one)
    slack = Mul (ceil_mode, stride_slack)
    free_slack = Add (free, slack)
    last_window = Div (free_slack, strides)
    last_start = Mul (last_window, strides)
    starts_in_padding = GreaterOrEqual (last_start, begin_padded)
    surplus = Cast <to = 7> (starts_in_padding)
    last_kept = Sub (last_window, surplus)
    out_size = Add (last_kept, one)
    {_WINDOWS}
    scale = Constant <value_float: float = @input_scale> ()
    smallest_alpha = Constant <value_float: float = @alpha_min> ()
    largest_alpha = Constant <value_float: float = @alpha_max> ()
    region_4d = Cast <to = 1> (w_region)
    channel_shape = Constant <value_ints = [-1, 1, 1]> ()
    column_shape = Constant <value_ints = [0, -1, 1]> ()
    region_column = Reshape (region_4d, column_shape)
    region = Mul (region_column, scale)
    slope_flat = Cast <to = 1> (prelu_slope)
    slope = Reshape (slope_flat, channel_shape)
    products = Mul (windows, region)
    h_linear = ReduceSum <keepdims = 1> (products, axis_2)
    h = PRelu (h_linear, slope)
    point_flat = Cast <to = 1> (w_point)
    point = Reshape (point_flat, channel_shape)
    bias_flat = Cast <to = 1> (b_point)
    bias = Reshape (bias_flat, channel_shape)
    h_point = Mul (h, point)
    unclipped = Add (h_point, bias)
    is_below = Less (unclipped, smallest_alpha)
    not_below = Where (is_below, smallest_alpha, unclipped)
    is_above = Greater (not_below, largest_alpha)
    exponent = Where (is_above, largest_alpha, not_below)
    {_POOL}
}}
"""

# The Reshape tells shape inference that size has two elements, where its graph does not. Labels go
# through float because TensorRT makes uint8 of nothing else; they stay exact.
_RESIZE_ARG_MAX = """
{name} (logits, size) => (labels)
{{
    batch_and_classes = Shape <end = 2> (logits)
    two = Constant <value_ints = [2]> ()
    height_and_width = Reshape (size, two)
    resized_shape = Concat <axis = 0> (batch_and_classes, height_and_width)
    {pixels}
    resized = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
        (pixels, , , resized_shape)
    best = ArgMax <axis = 1, keepdims = 0> (resized)
    label = Cast <to = 1> (best)
    labels = Cast <to = {labels}> (label)
}}
"""

# What it resizes: logits as they are, or those of blocks shuffled. No body serves both ranks, as
# shapes inside are to be known before it runs.
_PIXELS = "pixels = Cast <to = 1> (logits)"
_PIXELS_OF_BLOCKS = """
    single = Cast <to = 1> (logits)
    planes = ReduceProd (batch_and_classes)
    block = Shape <start = 2, end = 4> (logits)
    cells = Shape <start = 4> (logits)
    planes_shape = Concat <axis = 0> (planes, block, cells)
    apart = Reshape (single, planes_shape)
    woven = Transpose <perm = [0, 3, 1, 4, 2]> (apart)
    sides = Mul (block, cells)
    pixels_shape = Concat <axis = 0> (batch_and_classes, sides)
    pixels = Reshape (woven, pixels_shape)
"""

# Logits that are resized before, for opset 13 and newer.
_PIXELS_RESIZED = """
    single = Cast <to = 1> (logits)
    first_size = Reshape (between, two)
    between_shape = Concat <axis = 0> (batch_and_classes, first_size)
    pixels = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
        (single, , , between_shape)
"""

# The same in opsets 11 to 14, where Shape gives whole shapes and Resize wants all its inputs; of
# pixels only, as files of blocks are written here.
_OLDER_RESIZE_ARG_MAX = """
{name} ({inputs}) => (labels)
{{
    shape = Shape (logits)
    first = Constant <value = int64[1] {{0}}> ()
    two = Constant <value = int64[1] {{2}}> ()
    batch_and_classes = Slice (shape, first, two)
    height_and_width = Reshape (size, two)
    resized_shape = Concat <axis = 0> (batch_and_classes, height_and_width)
    {pixels}
    none = Constant <value = float[0] {{}}> ()
    resized = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
        (pixels, {none}, {none}, resized_shape)
    best = ArgMax <axis = 1, keepdims = 0> (resized)
    label = Cast <to = 1> (best)
    labels = Cast <to = {labels}> (label)
}}
"""


def function_bodies(
    opset: int = ONNX_OPSET, *, in_blocks: bool = False
) -> dict[str, onnx.FunctionProto]:
    """Each operator's body in standard operators, to attach to a model that uses it.

    Arithmetic is float32 whatever the storage type, rounded once at the end. The bodies have one
    output each: a node must list exactly as many outputs as its body.

    Args:
        opset: Of the standard operators in the model that is to carry the bodies. ``PPool`` and
            ``PPoolUnit`` need 18, ``ResizeTwiceArgMax`` 13, the others 11.
        in_blocks: Whether labels are made of logits of blocks, [N, K, s, s, h, w].
    """
    header = f'<domain: "{DOMAIN}", opset_import: ["": {opset}]>'
    last = _RESIZE_ARG_MAX if opset >= 15 else _OLDER_RESIZE_ARG_MAX
    pixels = _PIXELS_OF_BLOCKS if in_blocks else _PIXELS
    labelling = (
        last.format(name=name, inputs="logits, size", labels=kind, pixels=pixels, none="none")
        for name, kind in RESIZE_OPERATORS.items()
    )
    twice = _OLDER_RESIZE_ARG_MAX.format(
        name="ResizeTwiceArgMax",
        inputs="logits, between, size",
        labels=2,
        pixels=_PIXELS_RESIZED,
        none="",
    )
    texts = (_PPOOL, _PPOOL_UNIT, *labelling, twice)
    bodies = (onnx.parser.parse_function(header + text) for text in texts)
    return {body.name: body for body in bodies}
