"""Networks of others: what is served over HTTP is what their own files answer."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image

from ppool.export import PRESETS, Adoption, Normalisation, adopt_model
from ppool.service.workers.inference import load_segmenter
from tests.service.harness import encoded
from tests.service.odd_networks import ZOO
from tests.service.zoo import Kept

NOTES = Path(__file__).parents[2] / "service" / "playground" / "notes.jpg"


def photos() -> list[NDArray[np.uint8]]:
    """Writing, colours that flow, and noise, of sizes that need no padding."""
    rng = np.random.default_rng(3)
    with Image.open(NOTES) as page:
        writing = np.asarray(page.crop((100, 100, 228, 196)))
    blobs = Image.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8)).resize((96, 128))
    noise = rng.integers(0, 256, (64, 96, 3), np.uint8)
    return [writing, np.asarray(blobs), noise]


def normalisation(options: dict[str, Any]) -> Normalisation:
    preset = options.pop("preset", None)
    if preset:
        return PRESETS[preset]
    parts = {
        key: options.pop(key) for key in ("mean", "std", "channels", "scale") if key in options
    }
    return Normalisation(**parts)


@pytest.mark.parametrize("kept", ZOO, ids=lambda kept: kept.name.replace(" ", "-"))
def test_the_mask_served_is_that_of_the_original(
    kept: Kept, tmp_path: Path, serving: Callable[..., Any]
) -> None:
    check_served(kept, tmp_path, serving)


def check_served(kept: Kept, tmp_path: Path, serving: Callable[..., Any]) -> None:
    """Adopt a network, serve it, and compare three masks with what its own file answers."""
    if callable(kept.model):
        source = kept.model(tmp_path)
    else:
        source = tmp_path / "network.onnx"
        source.write_bytes(kept.model.SerializeToString())
    options, path = dict(kept.options), tmp_path / "adopted.onnx"
    adoption = Adoption((), normalisation(options), **options)
    adopt_model(source, path, adoption)
    session = original(kept, source)
    name = session.get_inputs()[0].name
    output = adoption.output or session.get_outputs()[0].name
    seen: set[int] = set()
    segmenter = load_segmenter(path)
    with serving(segmenter, model=[path], workers=1) as client:
        for photo in photos():
            fed = photo
            if kept.size is not None:
                kind = Image.Resampling[adoption.resample.upper()]
                fed = np.asarray(Image.fromarray(photo).resize(kept.size[::-1], kind))
            (answer,) = session.run([output], {name: kept.feed(fed)})
            truth = kept.read(answer, photo.shape[:2])
            served = client.segment(encoded(photo))
            assert served.status_code == 200, served.text
            mask = np.asarray(Image.open(io.BytesIO(served.content)))
            assert mask.shape == photo.shape[:2]
            assert np.mean(mask != truth) <= kept.allowed
            seen |= {*np.unique(truth)}
    assert len(seen) >= min(3, len(segmenter.model.classes))


def original(kept: Kept, source: Path) -> onnxruntime.InferenceSession:
    if kept.name == "sizes of 0":  # ONNX Runtime itself takes nothing but 0 there
        model = onnx.load(source)
        model.graph.input[0].type.tensor_type.ClearField("shape")
        return onnxruntime.InferenceSession(model.SerializeToString())
    return onnxruntime.InferenceSession(source)


def rows() -> list[str]:
    """Of the table in docs/reference/networks.md."""
    found = []
    for kept in ZOO:
        options = dict(kept.options)
        preset = options.pop("preset", None)
        said = [f"`{preset}`"] if preset else []
        said += [f"`{key}={value!r}`" for key, value in options.items()]
        share = f"{100 * (1 - kept.allowed):g} %"
        found.append(f"| {kept.name} | {', '.join(said)} | {share} |")
    return found


def test_the_page_of_networks_lists_them_all() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "networks.md").read_text("utf-8")
    table = page.partition("## Published")[0]
    assert [line for line in table.splitlines() if line.startswith("| ")][2:] == rows()
