"""Networks that others published, fetched by `make zoo`: served as their own files answer."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from ppool.export import PRESETS, Adoption, Normalisation, adopt_model, export_model
from ppool.export._adopt_cli import app as adopt_app
from ppool.export._beside import read_beside
from ppool.export._trace import scores_of
from ppool.feeding import feed
from ppool.runtime import make_session
from ppool.service.codecs.resizing import reduced
from ppool.service.workers.inference import load_segmenter
from tests.docs.stand_ins import write_isnet
from tests.service.frameworks import NETWORKS, OTHERS, SIDE, built, package, written
from tests.service.harness import encoded
from tests.service.test_zoo import check_served, photos
from tests.service.zoo import MEAN, STD, Kept, above, largest, nchw

BILINEAR = Image.Resampling.BILINEAR
FOLDER = Path(os.environ.get("ZOO_PUBLISHED", "/nonexistent"))
pytestmark = [
    pytest.mark.skipif(not FOLDER.is_dir(), reason="fetched by make zoo only"),
    # Warnings are errors in our own code; this is others'.
    pytest.mark.filterwarnings("default"),
]


def kept(name: str) -> Kept:
    """A network of a framework, as one of the zoo."""
    entry = NETWORKS[name]
    size = None if entry.size is None else (entry.size, entry.size)
    read = above(0.5) if "sigmoid" in name else largest

    def write(folder: Path) -> Path:
        return written(name, photos(), folder / "network.onnx")

    return Kept(name, write, read=read, size=size)


@pytest.mark.parametrize("name", NETWORKS, ids=lambda name: name.replace(" ", "-"))
def test_a_network_of_a_framework_is_served_as_it_answers(
    name: str, tmp_path: Path, serving: Callable[..., Any]
) -> None:
    check_served(kept(name), tmp_path, serving)


@pytest.mark.parametrize("name", ["torchvision lraspp", "transformers SegFormer"])
def test_a_network_of_a_framework_is_exported_as_it_is(name: str, tmp_path: Path) -> None:
    """Dictionaries of torchvision, dataclasses of transformers."""
    network = built(name, photos())
    path = tmp_path / "mine.onnx"
    names = ["a", "b", "c", "d", "e"]
    export_model(network, path, classes=names, mean=MEAN, std=STD)
    session = make_session(path)
    seen: set[int] = set()
    for photo in photos():
        with torch.no_grad():
            scores = scores_of(network(torch.from_numpy(nchw(photo))))
        truth = largest(scores.numpy(), photo.shape[:2])
        (mask,) = session.run(["mask"], {"image": photo[None]})
        assert np.mean(mask[0] != truth) <= 1e-3
        seen |= {*np.unique(truth)}
    assert len(seen) >= 3


def test_a_segformer_needs_no_word_but_its_name(
    tmp_path: Path, serving: Callable[..., Any]
) -> None:
    """The README's lines, with files as the hub has them; transformers' processor is the judge."""
    name, names = "transformers SegFormer", ["wall", "door", "roof", "tree", "sky"]
    transformers = package("transformers")
    (tmp_path / "onnx").mkdir()
    network = built(name, photos())
    network.config.id2label = dict(enumerate(names))  # type: ignore[union-attr]
    network.config.save_pretrained(tmp_path)  # type: ignore[operator, union-attr]
    processor = transformers.SegformerImageProcessor(size={"height": 96, "width": 128})
    processor.save_pretrained(tmp_path)
    source = written(name, photos(), tmp_path / "onnx" / "model.onnx")
    path = tmp_path / "segformer.onnx"
    result = CliRunner().invoke(adopt_app, ["adopt", str(source), "-o", str(path)])
    assert result.exit_code == 0, result.output
    session = onnxruntime.InferenceSession(source)
    segmenter = load_segmenter(path)
    assert [entry.name for entry in segmenter.model.classes] == names
    photo = photos()[0]
    fed = processor(images=Image.fromarray(photo), return_tensors="np")["pixel_values"]
    truth = largest(session.run(None, {"pixel_values": fed})[0], photo.shape[:2])
    with serving(segmenter, model=[path], workers=1) as client:
        mask = np.asarray(Image.open(io.BytesIO(client.segment(encoded(photo)).content)))
    assert len(np.unique(truth)) >= 3
    assert np.mean(mask != truth) <= 1e-3


@pytest.mark.parametrize("name", OTHERS)
def test_networks_of_other_kinds_are_refused_by_name(name: str, tmp_path: Path) -> None:
    (said, build), path = OTHERS[name], tmp_path / "network.onnx"
    torch.onnx.export(build().eval(), (torch.zeros(1, 3, SIDE, SIDE),), str(path), dynamo=False)
    with pytest.raises(ValueError, match=said) as refused:
        adopt_model(path, tmp_path / "out.onnx", Adoption((), PRESETS["imagenet"]))
    assert "Triton" in str(refused.value)  # which would serve it


WHOLE = {"size": {"height": 96, "width": 128}}
ROUNDED = {"ensure_multiple_of": 28}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Segformer", WHOLE),
        ("Segformer", WHOLE | {"do_rescale": False}),
        ("Segformer", WHOLE | {"do_normalize": False, "rescale_factor": 1 / 127.5}),
        ("Segformer", WHOLE | {"image_mean": 0.5, "image_std": 0.25}),
        ("MobileViT", {"size": {"shortest_edge": 96}, "do_center_crop": False}),
        ("Beit", WHOLE),
        ("DPT", {"size": {"height": 96, "width": 96}, "keep_aspect_ratio": True}),
        # Resized, where Pillow is the judge: PyTorch rounds once, Pillow twice.
        ("SegformerPil", {"size": {"height": 80, "width": 72}}),
        ("BeitPil", {"size": {"height": 80, "width": 72}}),
        ("BeitPil", {"size": {"height": 200, "width": 300}, "resample": 1}),
        ("DPTPil", ROUNDED | {"size": {"height": 64, "width": 64}, "keep_aspect_ratio": True}),
        ("DPTPil", ROUNDED | {"size": {"height": 112, "width": 112}, "keep_aspect_ratio": True}),
        ("DPTPil", ROUNDED | {"size": {"height": 384, "width": 384}, "keep_aspect_ratio": True}),
        ("DPTPil", ROUNDED | {"size": {"height": 70, "width": 90}}),
    ],
)
def test_photos_become_what_transformers_makes_of_them(
    kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    name, pil, _ = kind.partition("Pil")
    processor = getattr(package("transformers"), f"{name}ImageProcessor{pil}")(**settings)
    processor.save_pretrained(tmp_path)
    photo = photos()[0]
    truth = processor(images=Image.fromarray(photo), return_tensors="np")["pixel_values"]
    found = read_beside(tmp_path / "model.onnx")
    assert found.normalisation is not None
    kept = ("size", "min_side", "rounds", "resample")
    sizes = {key: getattr(found, key) for key in kept} | {"multiple": found.multiple or 1}
    policy = Adoption((), found.normalisation, **sizes).policy(None, None)
    image = reduced(photo, policy)
    assert feed(image, policy, photo.shape[:2]).image.shape == image.shape or not policy.rounds
    fed = found.normalisation(image[None])
    assert fed.shape == truth.shape
    assert np.allclose(fed, truth, atol=1e-4)


TEXT = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bgr")
CUT_OUT = Normalisation((128,), (256,), scale=255)


def text_detection(_: Path) -> Path:
    return FOLDER / "rapidocr_onnxruntime" / "models" / "ch_PP-OCRv4_det_infer.onnx"


def background_removal(size: str) -> Callable[[Path], Path]:
    return lambda folder: write_isnet(size, folder / f"isnet_{size}.onnx")


@pytest.mark.parametrize(
    ("find", "normalisation", "options", "allowed"),
    [
        (text_detection, TEXT, {}, 1e-3),
        (background_removal("small"), CUT_OUT, {"output": "output"}, 1e-3),
        (background_removal("medium"), CUT_OUT, {"output": "output"}, 1e-3),
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
            fed = photo
            if about.input.size:
                fed = np.asarray(Image.fromarray(photo).resize(about.input.size[::-1], BILINEAR))
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
