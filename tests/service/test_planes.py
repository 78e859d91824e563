"""A plane a class, where classes overlap: judged by ONNX Runtime on the original file."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppool.service.workers.inference import load_segmenter
from tests.service.soft import (
    CASES,
    LEVEL,
    adopted,
    arrays,
    ask,
    ask_protocol,
    from_rle,
    grey,
    infer,
    photo,
)


@pytest.mark.parametrize(
    ("name", "level"), [("overlapping logits", 0.5), ("overlapping probabilities", LEVEL)]
)
def test_classes_of_a_multilabel_network_have_a_plane_each(
    name: str, level: float, tmp_path: Path, serving: Callable[..., Any]
) -> None:
    image = photo()
    truth = CASES[name].truth(image) > level
    truth[0] = ~truth[1:].any(0)
    assert (truth.sum(0) > 1).any()
    names = ["background", "class 0", "class 1", "class 2", "class 3"]
    path = adopted(CASES[name], tmp_path)
    with serving(load_segmenter(path), model=[path], workers=1) as client:
        found = arrays(client, image, planes="all")
        zipped = ask(client, image, accept="application/zip", planes="class 1,3")
        result = ask(client, image, accept="application/json", planes="all", mask="rle").json()[
            "images"
        ][0]
        one = ask(client, image, planes="class 2")
    for index, class_name in enumerate(names):
        plane = found[f"plane/{class_name}"]
        assert plane.dtype == np.uint8
        assert np.mean(plane != truth[index]) < 1e-3
    with zipfile.ZipFile(io.BytesIO(zipped.content)) as archive:
        files = [entry for entry in archive.namelist() if "plane" in entry]
        assert files == ["001-image.plane-2-class_1.png", "001-image.plane-3-class_2.png"]
        plane = grey(archive.read(files[0]))
    assert (plane == 255 * found["plane/class 1"]).all()
    assert (grey(one.content) == 255 * found["plane/class 2"]).all()
    assert [plane["name"] for plane in result["planes"]] == names
    for index, entry in enumerate(result["planes"]):
        decoded = from_rle(entry["mask"]["counts"][str(index)], entry["mask"]["size"])
        assert (decoded == found[f"plane/{names[index]}"]).all()
        assert entry["pixels"] == decoded.sum()


def test_planes_and_probabilities_in_the_open_inference_protocol(
    tmp_path: Path, serving: Callable[..., Any]
) -> None:
    image = photo()
    truth = CASES["overlapping logits"].truth(image)
    path = adopted(CASES["overlapping logits"], tmp_path)
    with serving(load_segmenter(path), model=[path], workers=1) as client:
        about = client.get("/v2/models/adopted").json()["outputs"]
        types = {entry["name"]: entry["datatype"] for entry in about}
        assert types["probability"] == types["probability/class 2"] == "FP32"
        assert types["plane/class 2"] == "UINT8"
        found = infer(client, image, "plane/class 2", "probability/class 2", "mask")
        both = ask_protocol(client, image, "probability", "probability/class 2")
        regions = ask_protocol(client, image, "plane/class 2", "polygons").json()["outputs"][1]
        polygons = ask(client, image, answers="polygons", accept="application/geo+json")
    np.testing.assert_allclose(found["probability/class 2"], truth[3], atol=1e-4)
    assert np.mean(found["plane/class 2"] != (truth[3] > 0.5)) < 1e-3
    assert both.status_code == 400
    assert json.loads(regions["data"][0]) == polygons.json()
    assert len({entry["properties"]["name"] for entry in polygons.json()["features"]}) > 2
