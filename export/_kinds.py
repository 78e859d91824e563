"""Networks that are no semantic segmentation, told by what they take and answer."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from ppool.export._modernise import graphs_inside
from ppool.export._network import Network, declared_sizes

__all__ = [
    "classifies_masks",
    "describe_shapes",
    "has_queries",
    "other_kind",
    "refuse_other_kinds",
]

INSTANCES = (
    "ppool serves semantic segmentation, one class a pixel: take the family's semantic network "
    "(DeepLab, SegFormer, UPerNet, YOLO '-sem'), or a server of detectors, such as Triton with its "
    "post-processing, for this one"
)
PROMPTS = "segment-anything.cpp, or a server that keeps the embedding between prompts, takes those"
DETECTION = frozenset(
    ("NonMaxSuppression", "EfficientNMS_TRT", "BatchedNMS_TRT", "RoiAlign", "MaxRoiPool")
)
# What other kinds call what they take and answer.
PROMPTED = ("point_coords", "input_points", "point_labels", "prompt")
WORDS = ("input_ids", "attention_mask", "token_type_ids")
SIZES = ("orig_target_sizes", "im_shape", "scale_factor")
DISTANCES = ("depth", "disparity")
QUERIES = ("queries_logits", "pred_masks")
JOINTS = ("heatmap", "keypoint", "simcc")


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
    model = network.model
    held = [*graphs_inside(model.graph), *model.functions]
    nodes = {node.op_type for holder in held for node in holder.node}
    listed = _listed(inputs)
    kinds = {
        f"is promptable segmentation, as SAM's ({listed}), and is asked for one object at a time; "
        f"{PROMPTS}": _named([*inputs, *network.outputs], PROMPTED),
        f"is asked for things in words ({listed}); a server that keeps text and image together "
        "takes those, such as Triton with a Python model": _named(inputs, WORDS),
        f"is a detector, which is told the photo's size ({listed}); {INSTANCES}": (
            len(inputs) > 1 and _named(inputs, SIZES)
        ),
        f"expected one input, the image, got {len(inputs)}: {listed}; fold the others into "
        "constants: export with one argument, or make initializers of their names": (
            len(inputs) > 1
        ),
        "is a detector or instance segmentation (it has "
        f"{', '.join(sorted(nodes & DETECTION))}); {INSTANCES}": bool(nodes & DETECTION),
        f"classifies masks (MaskFormer, Mask2Former, DETR); {INSTANCES}": _named(
            network.outputs, QUERIES
        ),
        "estimates distances, not classes; serve it as tensors (Triton, OpenVINO Model Server)": (
            _named(network.outputs, DISTANCES)
        ),
        "finds joints of bodies, a map for each; serve it as tensors, or with MMPose": (
            _named(network.outputs, JOINTS)
        ),
    }
    found = next((text for text, fits in kinds.items() if fits), None)
    if found is not None:
        raise ValueError(f"network: {found}")
    ((name, sizes),) = inputs.items()
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


def _named(given: Iterable[str], words: Sequence[str]) -> bool:
    names = " ".join(given).lower()
    return any(word in names for word in words)


def has_queries(shapes: Mapping[str, Sequence[int]], maps: Container[str]) -> bool:
    """Whether objects come beside the maps: boxes, queries or embeddings."""
    return any(len(shape) == 3 and name not in maps for name, shape in shapes.items()) or _named(
        shapes, ("box", "queries", "embedding")
    )


def classifies_masks(shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether as many masks as answers come, [N, Q, h, w] and [N, Q, K]."""
    answers = {tuple(shape[:2]) for shape in shapes.values() if len(shape) == 3}
    return any(len(shape) == 4 and tuple(shape[:2]) in answers for shape in shapes.values())


def _has_boxes(shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether four numbers come for each of several answers, [N, Q, 4] and [N, Q, K]."""
    threes = [tuple(shape) for shape in shapes.values() if len(shape) == 3]
    corners = {shape[:2] for shape in threes if shape[2] == 4}
    return any(shape[:2] in corners for shape in threes if shape[2] != 4)


def other_kind(shapes: Mapping[str, Sequence[int]], image: tuple[int, int]) -> str:
    """What a network is none of whose outputs has the photo's axes, in a sentence.

    Args:
        shapes: Of its outputs for one photo.
        image: Height and width of the photo.
    """
    listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    ranks = [len(shape) for shape in shapes.values()]
    kinds = {
        "gives more pixels than it takes, as super-resolution; serve it as tensors (Triton, "
        "OpenVINO Model Server)": _enlarges(shapes, image),
        f"classifies masks (MaskFormer, Mask2Former, DETR); {INSTANCES}": (
            _named(shapes, ("queries",)) or classifies_masks(shapes)
        ),
        f"is an encoder, as the first half of SAM; {PROMPTS}": _named(shapes, ("embedding",)),
        f"is a detector or instance segmentation; {INSTANCES}": (
            _named(shapes, ("box",)) or _has_boxes(shapes)
        ),
        f"is instance segmentation, as YOLO's '-seg' networks; {INSTANCES}": {3, 4} <= {*ranks},
        f"is a detector, or gives features; {INSTANCES}": ranks == [3],
        "is a classifier, or gives one answer for a whole photo; any ONNX server that takes "
        "tensors (Triton, OpenVINO Model Server) serves it": all(rank <= 2 for rank in ranks)
        or all(max(shape[2:], default=1) == 1 for shape in shapes.values()),
    }
    other = "expected an output with the photo's height and width, at any stride"
    kind = next((text for text, fits in kinds.items() if fits), other)
    return f"network: answers {listed} to a photo of {image[0]} x {image[1]} pixels: {kind}"


def _enlarges(shapes: Mapping[str, Sequence[int]], image: tuple[int, int]) -> bool:
    """Whether all that comes is a picture of more pixels than went in."""
    return all(
        len(shape) == 4 and shape[1] in {1, 3} and min(shape[2:]) > max(image)
        for shape in shapes.values()
    )
