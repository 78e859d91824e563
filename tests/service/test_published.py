"""Networks that others published, fetched by `make zoo`: served as their own files answer."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image

from ppool.export import Adoption, Normalisation, adopt_model
from ppool.metadata import InputPolicy
from ppool.service.codecs.resizing import reduced
from ppool.service.workers.inference import load_segmenter
from tests.service.harness import encoded
from tests.service.test_zoo import photos
from tests.service.zoo import above

FOLDER = Path(os.environ.get("PPOOL_PUBLISHED", "/nonexistent"))
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="fetched by make zoo only")

TEXT = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bgr")
CUT_OUT = Normalisation((128,), (256,), scale=255)


def text_detection(_: Path) -> Path:
    return FOLDER / "rapidocr_onnxruntime" / "models" / "ch_PP-OCRv4_det_infer.onnx"


def background_removal(size: str) -> Callable[[Path], Path]:
    def joined(folder: Path) -> Path:
        """ISNet, which the package holds in pieces."""
        pieces = FOLDER / "package" / "dist"
        parts = json.loads((pieces / "resources.json").read_text())[f"/models/{size}"]["chunks"]
        path = folder / f"isnet_{size}.onnx"
        path.write_bytes(b"".join((pieces / part["hash"]).read_bytes() for part in parts))
        return path

    return joined


@pytest.mark.parametrize(
    ("find", "normalisation", "options", "allowed"),
    [
        (text_detection, TEXT, {}, 1e-3),
        (background_removal("small"), CUT_OUT, {"output": "output"}, 1e-2),
        (background_removal("medium"), CUT_OUT, {"output": "output"}, 1e-2),
    ],
    ids=["PP-OCRv4 detection", "ISNet, quantised", "ISNet, float16"],
)
def test_a_published_network_is_served_as_it_answers(
    find: Callable[[Path], Path],
    normalisation: Normalisation,
    options: dict[str, Any],
    allowed: float,
    tmp_path: Path,
    serving: Callable[..., Any],
) -> None:
    source, path = find(tmp_path), tmp_path / "adopted.onnx"
    about = adopt_model(source, path, Adoption((), normalisation, **options))
    assert about.head == "threshold"
    session = onnxruntime.InferenceSession(source)
    given, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    seen: set[int] = set()
    with serving(load_segmenter(path), model=[path], workers=1) as client:
        for photo in photos():
            fed = (
                reduced(photo, InputPolicy.fixed(*about.input.size)) if about.input.size else photo
            )
            (answer,) = session.run([output], {given: fed_array(fed, normalisation)})
            truth = above(0.5)(answer, photo.shape[:2])
            served = client.segment(encoded(photo))
            mask = np.asarray(Image.open(io.BytesIO(served.content)))
            assert np.mean(mask != truth) <= allowed
            seen |= {*np.unique(truth)}
    assert seen == {0, 1}


def fed_array(image: NDArray[np.uint8], normalisation: Normalisation) -> NDArray[np.float32]:
    x = image[..., ::-1] if normalisation.channels == "bgr" else image
    white = normalisation.scale or 1
    x = (x * (white / 255) - np.array(normalisation.mean)) / np.array(normalisation.std)
    return x.transpose(2, 0, 1)[None].astype(np.float32)
