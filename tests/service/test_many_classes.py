"""Masks of more than 256 classes: in 16 bits, wherever one asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

from ppool.export._precision import lower_precision, score
from ppool.export._tensorrt import Limits, Shapes
from ppool.runtime import make_session
from ppool.service.workers.inference import load_segmenter
from tests.service.harness import Client
from tests.service.soft import (
    Array,
    Case,
    adopted,
    arrays,
    ask,
    from_rle,
    grey,
    infer,
    network,
    photo,
    softmax,
)


@dataclass(frozen=True)
class Many:
    """A network of many classes being served, its file, and its mask of the photo."""

    client: Client
    path: Path
    truth: Array


@pytest.fixture(scope="module", params=[300, 1000])
def many(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    serving: Callable[..., Any],
) -> Iterator[Many]:
    case = Case(network(request.param, spread=20.0), softmax, {})
    path = adopted(case, tmp_path_factory.mktemp("many"))
    truth = case.truth(photo()).argmax(0)
    assert truth.max() > 255
    with serving(load_segmenter(path), model=[path], workers=1) as client:
        yield Many(client, path, truth)


def test_more_than_256_classes_come_in_16_bits(many: Many) -> None:
    client, truth = many.client, many.truth
    image = photo()
    mask = grey(ask(client, image).content)
    assert mask.dtype == np.uint16
    assert np.mean(mask != truth) < 1e-3
    found = arrays(client, image, probability="winner")
    assert found["mask"].dtype == np.uint16
    assert (found["mask"] == mask).all()
    tiled = arrays(client, image, mode="tile")["mask"]
    assert tiled.dtype == np.uint16
    assert np.mean(tiled != truth) < 1e-2
    result = ask(client, image, accept="application/json", mask="rle").json()
    (about,) = result["images"]
    for entry in about["classes"]:
        assert entry["pixels"] == (mask == entry["id"]).sum()
        counts = about["mask"]["counts"][str(entry["id"])]
        assert (from_rle(counts, about["mask"]["size"]) == (mask == entry["id"])).all()
    assert sum(entry["pixels"] for entry in about["classes"]) == mask.size
    colours = {entry["id"]: entry["color"] for entry in about["classes"]}
    overlay = cv2.imdecode(
        np.frombuffer(ask(client, image, overlay="true").content, np.uint8),
        cv2.IMREAD_COLOR,
    )[..., ::-1]
    palette = np.zeros((mask.max() + 1, 3), np.uint8)
    for index, colour in colours.items():
        palette[index] = list(bytes.fromhex(colour[1:]))
    blended = (image.astype(int) + palette[mask]) / 2
    assert np.abs(overlay - blended).max() <= 1


def test_more_than_256_classes_in_the_open_inference_protocol(many: Many) -> None:
    about = many.client.get("/v2/models/adopted").json()
    assert about["outputs"][0] == {"name": "mask", "datatype": "UINT16", "shape": [-1, -1, -1]}
    found = infer(many.client, photo(), "mask", "probability/class 7")
    assert np.mean(found["mask"] != many.truth) < 1e-3
    assert found["probability/class 7"].shape == many.truth.shape


def test_more_than_256_classes_are_scored_halved_and_kept_from_tensorrt(
    many: Many, tmp_path: Path
) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), photo()[..., ::-1])
    truth = many.truth.astype(np.uint16)
    truth[:9] = 65535  # which is not counted
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), truth)
    assert score(many.path, tmp_path).mean_iou > 0.99
    halved = tmp_path / "half.onnx"
    lower_precision(many.path, halved, "fp16")
    (mask,) = make_session(halved).run(["mask"], {"image": photo()[None]})
    assert mask.dtype == np.uint16
    assert np.mean(mask[0] != many.truth) < 0.02
    model = onnx.load(many.path)
    with pytest.raises(ValueError, match="more than 256 classes, and TensorRT no type"):
        Shapes.of(model, make_session(many.path).metadata.input, Limits())
