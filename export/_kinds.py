"""Networks that are no semantic segmentation, told by what they take and answer."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from ppool.export._network import Network, declared_sizes

__all__ = ["describe_shapes", "other_kind", "refuse_other_kinds"]

INSTANCES = (
    "ppool serves semantic segmentation, one class a pixel: take the family's semantic network "
    "(DeepLab, SegFormer, UPerNet, YOLO '-sem'), or a server of detectors, such as Triton with its "
    "post-processing, for this one"
)
PROMPTS = "segment-anything.cpp, or a server that keeps the embedding between prompts, takes those"


def describe_shapes(sizes: Sequence[int | None]) -> str:
    """Sizes as people write them."""
    return f"[{', '.join('?' if size is None else str(size) for size in sizes)}]"


def refuse_other_kinds(network: Network) -> None:
    """Look at what is declared.

    Raises:
        ValueError: naming the kind, and what would serve it.
    """
    inputs = {entry.name: declared_sizes(entry) for entry in network.inputs}
    if not inputs:
        raise ValueError("network: expected one input, the image, got none")
    nodes = {node.op_type for node in network.model.graph.node}
    names = " ".join((*inputs, *network.outputs)).lower()
    if any(word in names for word in ("point_coords", "input_points", "point_labels", "prompt")):
        raise ValueError(
            f"network: is promptable segmentation, as SAM's ({_listed(inputs)}), and is asked for "
            f"one object at a time; {PROMPTS}"
        )
    if len(inputs) > 1:
        raise ValueError(
            f"network: expected one input, the image, got {len(inputs)}: {_listed(inputs)}; fold "
            "the others into constants (onnxruntime.tools.make_dynamic_shape_fixed, or export "
            "with one argument)"
        )
    ((name, sizes),) = inputs.items()
    if any(word in nodes for word in ("NonMaxSuppression", "EfficientNMS_TRT", "RoiAlign")):
        raise ValueError(
            "network: is a detector or instance segmentation (it has "
            f"{', '.join(sorted(nodes & {'NonMaxSuppression', 'EfficientNMS_TRT', 'RoiAlign'}))}); "
            f"{INSTANCES}"
        )
    if sizes is not None and len(sizes) == 5:
        raise ValueError(
            f"input {name}: takes volumes or clips, {describe_shapes(sizes)}, not photos; "
            "MONAI Deploy serves medical volumes; a 2D network takes their slices"
        )
    if sizes is not None and len(sizes) < 3:
        raise ValueError(f"input {name}: expected photos, got {describe_shapes(sizes)}")
    kind = network.inputs[0].type.tensor_type.elem_type
    if not kind:
        raise ValueError(f"input {name}: expected a tensor")


def _listed(inputs: Mapping[str, Sequence[int | None] | None]) -> str:
    return ", ".join(
        name if sizes is None else f"{name} {describe_shapes(sizes)}"
        for name, sizes in inputs.items()
    )


def has_queries(shapes: Mapping[str, Sequence[int]], maps: Container[str]) -> bool:
    """Whether objects come beside the maps: boxes, queries or embeddings."""
    names = " ".join(shapes).lower()
    words = ("box", "queries", "embedding")
    return any(len(shape) == 3 and name not in maps for name, shape in shapes.items()) or any(
        word in names for word in words
    )


def other_kind(shapes: Mapping[str, Sequence[int]], image: tuple[int, int]) -> str:
    """What a network is none of whose outputs has the photo's axes, in a sentence.

    Args:
        shapes: Of its outputs for one photo.
        image: Height and width of the photo.
    """
    listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    ranks = [len(shape) for shape in shapes.values()]
    names = " ".join(shapes).lower()
    kinds = {
        f"is an encoder, as the first half of SAM; {PROMPTS}": "embedding" in names,
        f"classifies masks (MaskFormer, Mask2Former, OneFormer); {INSTANCES}": "queries" in names,
        f"is a detector or instance segmentation; {INSTANCES}": "box" in names,
        f"is instance segmentation, as YOLO's '-seg' networks; {INSTANCES}": {3, 4} <= {*ranks},
        f"is a detector, or gives features; {INSTANCES}": ranks == [3],
        "is a classifier, or gives one answer for a whole photo; any ONNX server that takes "
        "tensors (Triton, OpenVINO Model Server) serves it": all(rank <= 2 for rank in ranks)
        or all(max(shape[2:], default=1) == 1 for shape in shapes.values()),
    }
    other = "expected an output with the photo's height and width, at any stride"
    kind = next((text for text, fits in kinds.items() if fits), other)
    return f"network: answers {listed} to a photo of {image[0]} x {image[1]} pixels: {kind}"
