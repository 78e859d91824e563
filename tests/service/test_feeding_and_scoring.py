"""An evaluation, of a checkpoint or of a file, scores exactly what the service answers."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from ppool.export import export_model, score
from ppool.feeding import Normalisation
from ppool.metadata import InputPolicy, LabelClass
from ppool.scoring import ConfusionMatrix
from ppool.service.workers.inference import load_segmenter
from ppool.training.datasets.files import FilePairs
from ppool.training.evaluate import evaluate
from tests.service.harness import Client, encoded, photo

POLICY = InputPolicy(max_side=96, multiple=16)
MEAN, STD = (0.45, 0.5, 0.4), (0.25, 0.2, 0.22)
CLASSES = tuple(LabelClass(i, name, f"#{i:02x}0000") for i, name in enumerate(("a", "b", "c")))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def photos() -> Iterator[tuple[str, bytes, tuple[int, int]]]:
    """File name, content, and height and width once upright."""
    yield "small.png", encoded(photo(37, 21)), (21, 37)
    yield "large.png", encoded(photo(400, 301)), (301, 400)
    # Large enough to be decoded at an eighth, a quarter, a half.
    for width, height in ((900, 700), (450, 333), (200, 150), (97, 96)):
        yield f"{width}.jpg", encoded(photo(width, height), "JPEG", quality=80), (height, width)
    for turn in (3, 6, 8):
        data = encoded(photo(310, 203), "JPEG", exif=exif(turn))
        yield f"turned{turn}.jpeg", data, (203, 310) if turn == 3 else (310, 203)
    yield "turned.webp", encoded(photo(310, 203), "WEBP", exif=exif(5)), (310, 203)
    deep = photo(120, 80)[..., 0].astype(np.uint16) * 257
    yield "deep.tif", encoded(deep, "TIFF"), (80, 120)
    yield "ink.tiff", encoded(Image.fromarray(photo(70, 90)).convert("CMYK"), "TIFF"), (90, 70)
    yield "clear.png", encoded(Image.fromarray(photo(64, 48)).convert("LA")), (48, 64)
    yield "line.bmp", encoded(photo(500, 3), "BMP"), (3, 500)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 3, 3, 2, 1, padding_mode="replicate")
    ).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of labelled photos, and a network's file."""
    root = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for name, data, shape in photos():
        (root / "images" / name).write_bytes(data)
        truth = rng.integers(0, 3, shape, np.uint8)
        truth[0, 0] = 255
        Image.fromarray(truth).save(root / "masks" / f"{Path(name).stem}.png")
    return root


@pytest.fixture(scope="module")
def model(network: nn.Module, folder: Path) -> Path:
    path = folder / "model.onnx"
    classes = [label.name for label in CLASSES]
    limits = {"max_side": POLICY.max_side, "multiple": POLICY.multiple}
    export_model(network, path, classes=classes, mean=MEAN, std=STD, **limits)
    return path


def served(client: Client, data: bytes) -> NDArray[np.uint8]:
    answer = client.segment(data)
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


@pytest.fixture(scope="module")
def counts(model: Path, folder: Path, serving: Callable[..., Any]) -> NDArray[np.int64]:
    """The confusion matrix of the masks that come over HTTP."""
    matrix = ConfusionMatrix(np.zeros((3, 3), np.int64))
    with serving(load_segmenter(model), model=[model], workers=1) as client:
        for name, data, _ in photos():
            truth = Image.open(folder / "masks" / f"{Path(name).stem}.png")
            matrix.update(np.asarray(truth), served(client, data))
    return matrix.counts


def test_a_checkpoint_is_scored_on_what_the_service_answers(
    network: nn.Module, folder: Path, counts: NDArray[np.int64]
) -> None:
    files = [folder / "images" / name for name, *_ in photos()]
    pairs = [(file, folder / "masks" / f"{file.stem}.png") for file in files]
    samples = FilePairs(pairs, CLASSES, {0: 0, 1: 1, 2: 2, 255: 255})
    found = evaluate(
        network,
        (samples[index] for index in range(len(samples))),
        num_classes=3,
        normalise=Normalisation(MEAN, STD),
        policy=POLICY,
    )
    # PyTorch and ONNX Runtime add in another order, which may decide a pixel between two classes.
    assert np.abs(found.counts[0] - counts).sum() <= counts.sum() * 1e-5
    assert (np.diag(counts) > 0).all()


def test_a_file_is_scored_on_what_the_service_answers(
    model: Path, folder: Path, counts: NDArray[np.int64]
) -> None:
    assert score(model, folder).mean_iou == round(ConfusionMatrix(counts).mean_iou, 4)
