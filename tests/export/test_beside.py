"""What Hugging Face's image processors write beside a network is done as they do it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ppool.export import PRESETS, Adoption, Normalisation
from ppool.export._beside import read_beside
from ppool.metadata import InputPolicy, ModelMetadata, Resample
from ppool.service.codecs.header import NO_LIMITS
from ppool.service.codecs.images import decode

SEGFORMER = {"image_processor_type": "SegformerImageProcessor", "image_mean": [0.485, 0.456, 0.406],
             "image_std": [0.229, 0.224, 0.225], "do_normalize": True, "do_rescale": True,
             "rescale_factor": 1 / 255, "do_reduce_labels": True, "do_resize": True}  # fmt: skip
IMAGENET = PRESETS["imagenet"]


@pytest.mark.parametrize(
    ("processor", "normalisation", "sizes"),
    [
        (SEGFORMER | {"size": {"height": 512, "width": 640}}, IMAGENET, {"size": (512, 640)}),
        (SEGFORMER | {"size": 512}, IMAGENET, {"size": (512, 512)}),
        (SEGFORMER | {"size": 512, "do_resize": False}, IMAGENET, {}),
        (SEGFORMER | {"size": None, "do_resize": None}, IMAGENET, {}),
        (
            SEGFORMER | {"size": {"shortest_edge": 640}},
            IMAGENET,
            {"min_side": 640, "max_side": 2560},
        ),
        (
            SEGFORMER | {"size": {"shortest_edge": 800, "longest_edge": 1333}, "size_divisor": 32},
            IMAGENET,
            {"min_side": 800, "max_side": 1333, "multiple": 32},
        ),
        (SEGFORMER | {"size": {"longest_edge": 1024}}, IMAGENET, {"max_side": 1024}),
        (
            SEGFORMER
            | {"size": {"longest_edge": 640}, "do_pad": True}
            | {"pad_size": {"height": 640, "width": 640}},
            IMAGENET,
            {"size": (640, 640), "pad": (124, 116, 104)},
        ),
        (
            SEGFORMER
            | {"size": {"height": 384, "width": 384}}
            | {"keep_aspect_ratio": True, "ensure_multiple_of": 32},
            IMAGENET,
            {"min_side": 384, "max_side": 1536, "multiple": 32, "rounds": True},
        ),
        (
            SEGFORMER | {"size": {"height": 500, "width": 390}, "ensure_multiple_of": 32},
            IMAGENET,
            {"size": (512, 384), "multiple": 32},
        ),
        # As apple/deeplabv3-mobilevit-small was published.
        (
            {"feature_extractor_type": "MobileViTFeatureExtractor", "size": 544, "crop_size": 512,
             "do_center_crop": True, "do_flip_channel_order": True, "do_resize": True},
            Normalisation((0, 0, 0), (1, 1, 1), "bgr", 1),
            {"min_side": 544, "max_side": 2176},
        ),
        (
            {"image_processor_type": "MobileViTImageProcessor", "image_mean": [0.5, 0.5, 0.5],
             "image_std": [0.5, 0.5, 0.5], "do_normalize": True, "size": {"shortest_edge": 224}},
            Normalisation((0, 0, 0), (1, 1, 1), scale=1),
            {"min_side": 224, "max_side": 896},
        ),
        (SEGFORMER | {"image_mean": 0.5, "image_std": 0.25}, Normalisation((0.5,), (0.25,)), {}),
        (
            SEGFORMER | {"image_mean": [0.5], "image_std": [0.25]},
            Normalisation((0.5,), (0.25,), "grey"),
            {},
        ),
        (SEGFORMER | {"do_normalize": False}, Normalisation((0,), (1,), scale=1), {}),
        (
            SEGFORMER
            | {"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False},
            PRESETS["tf"],
            {},
        ),
        (
            SEGFORMER | {"do_rescale": False, "image_mean": [123.675, 116.28, 103.53],
                         "image_std": [58.395, 57.12, 57.375]},
            Normalisation((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
            {},
        ),
    ],
)  # fmt: skip
def test_what_a_processor_does_is_done(
    processor: dict[str, Any],
    normalisation: Normalisation,
    sizes: dict[str, Any],
    tmp_path: Path,
) -> None:
    for name, document in (
        ("preprocessor_config.json", processor),
        ("processor_config.json", {"processor_class": "X", "image_processor": processor}),
    ):
        (tmp_path / name).write_text(json.dumps(document))
        found = read_beside(tmp_path / "model.onnx")
        assert found.files == (tmp_path / name,)
        assert found.normalisation is not None
        photo = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 3), np.uint8)
        assert np.allclose(found.normalisation(photo), normalisation(photo), atol=1e-5)
        expected = dict.fromkeys(("size", "pad", "min_side", "max_side", "multiple"))
        expected |= {"rounds": False} | sizes
        assert {key: getattr(found, key) for key in expected} == expected
        assert bool(found.notes) == bool(processor.get("do_center_crop"))
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    "processor",
    [
        {"image_mean": [1, 2, 3, 4], "image_std": [1, 1, 1, 1]},
        {"image_mean": [0.5] * 3},
        {"image_mean": "grey", "image_std": "grey"},
        {"image_processor_type": "X", "size": {"smallest": 3}},
        {"image_processor_type": "X", "size": [3]},
        SEGFORMER | {"size": {"height": 3, "width": 4}, "keep_aspect_ratio": True},
        SEGFORMER | {"resample": 6},
        SEGFORMER | {"resample": "cubic"},
    ],
)
def test_a_processor_without_sense_is_named(processor: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(processor))
    with pytest.raises(ValueError, match=r"preprocessor_config\.json: cannot be understood: "):
        read_beside(tmp_path / "model.onnx")


def test_classes_go_as_far_as_their_numbers(tmp_path: Path) -> None:
    names = {"0": "wall", "1": "door", "255": "ignore"}
    (tmp_path / "config.json").write_text(json.dumps({"id2label": names}))
    assert read_beside(tmp_path / "model.onnx").classes == ("wall", "door")


@pytest.mark.parametrize(
    ("processor", "resample"),
    [
        ({}, "bilinear"),
        ({"resample": 2}, "bilinear"),
        ({"resample": 3}, "bicubic"),
        ({"resample": 1}, "lanczos"),
        ({"image_processor_type": "BeitImageProcessor"}, "bicubic"),
        ({"image_processor_type": "DPTImageProcessor", "resample": 2}, "bilinear"),
    ],
)
def test_photos_are_resized_as_the_processor_does_it(
    processor: dict[str, Any], resample: Resample, tmp_path: Path
) -> None:
    document = SEGFORMER | {"size": {"height": 40, "width": 30}} | processor
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(document))
    found = read_beside(tmp_path / "model.onnx")
    assert (found.resample, found.normalisation is not None) == (resample, True)
    policy = Adoption((), IMAGENET, size=found.size, resample=found.resample).policy(None, None)
    assert ModelMetadata.from_json(described(policy).to_json()).input == policy
    photo = np.random.default_rng(0).integers(0, 256, (97, 61, 3), np.uint8)
    judge = Image.fromarray(photo).resize((30, 40), Image.Resampling[resample.upper()])
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG")
    decoded = decode(file.getvalue(), NO_LIMITS, policy).image
    assert np.abs(decoded.astype(int) - judge).max() <= (resample == "bilinear")


def described(policy: InputPolicy) -> ModelMetadata:
    return ModelMetadata(name="x", network="x", classes=(), input=policy, stages=())


@pytest.mark.parametrize(
    ("photo", "fed"),
    [
        ((480, 640), (384, 512)),  # the shorter side, which takes less
        ((1000, 500), (768, 384)),
        ((100, 200), (192, 384)),  # the longer one, of what is enlarged
        ((300, 1000), (384, 1280)),
        ((10, 1000), (32, 384)),  # one multiple at the least
        ((1000, 6000), (384, 1536)),  # as long as it may be
    ],
)
def test_sides_are_rounded_where_the_processor_rounds(
    photo: tuple[int, int], fed: tuple[int, int]
) -> None:
    policy = InputPolicy(1536, 32, min_side=384, rounds=True)
    assert policy.reduced(*photo) == policy.padded_shape(*fed) == fed
