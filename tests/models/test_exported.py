"""A network read back from an exported file answers as the file does, and can be trained."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from benchmarks.pages import INK
from ppool.export import Behind
from ppool.feeding import Normalisation
from ppool.models import create_model, load_weights, settle_norms
from ppool.runtime import LOGITS, make_session
from ppool.service.models import shipped_model
from research.pages import PAGE_CLASSES

ROOT = Path(__file__).parents[2]
NORMALISATION = Normalisation((0.6,) * 3, (0.25,) * 3)
CASES = ROOT / "tests" / "export" / "cases"


def photo() -> NDArray[np.uint8]:
    """Print and handwriting, uint8 [1, 64, 96, 3]."""
    with Image.open(ROOT / "service" / "playground" / "notes.jpg") as page:
        return np.asarray(page.crop((576, 32, 672, 96)))[None]


def close(given: torch.Tensor, truth: torch.Tensor, allowed: float = 1e-4) -> bool:
    return float((given - truth).abs().max()) <= allowed * float(truth.abs().max())


def test_the_shipped_file_becomes_the_network_that_it_was(caplog: pytest.LogCaptureFixture) -> None:
    path = shipped_model()
    with caplog.at_level(logging.WARNING):
        model = create_model("unet_pages", num_classes=7, weights=path).eval()
    assert not caplog.records  # not a tensor is missing, or has no place
    (truth,) = make_session(path, use_native=False).run([LOGITS], {"image": photo()})
    x = torch.from_numpy(NORMALISATION(photo()))
    pixels = torch.from_numpy(photo().astype(np.float32)).permute(0, 3, 1, 2)
    # What the file does behind the network.
    moved = Behind(INK, ("text", "handwriting"), "picture").layer(PAGE_CLASSES)
    assert moved is not None
    with torch.no_grad():
        assert close(moved(model(x), pixels), torch.from_numpy(truth))
        settle_norms(model, x)
        assert close(moved(model(x), pixels), torch.from_numpy(truth))
        # The first step of training sees the same network.
        assert close(moved(model.train()(x), pixels), torch.from_numpy(truth))


def test_other_classes_start_from_it_with_a_new_head() -> None:
    model = create_model("unet_pages", num_classes=3)
    report = load_weights(model, shipped_model())
    assert [*report.mismatched] == ["head.weight", "head.bias"]
    assert report.missing == report.unexpected == []
    assert "stem.1.running_var" in report.loaded


def test_settling_keeps_statistics_of_its_own_images() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    nn.init.uniform_(norm.weight, 0.5, 2)
    x = torch.randn(4, 3, 8, 8) * 3 + 1
    before = norm.eval()(x)
    settle_norms(norm, x)
    assert norm.running_mean is not None
    assert torch.allclose(norm.running_mean, x.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.eval()(x), before, atol=1e-5)
    assert torch.allclose(norm.train()(x), before, atol=1e-4)


def junk(folder: Path) -> Path:
    path = folder / "junk.onnx"
    path.write_bytes(b"no model")
    return path


def without_weights(folder: Path) -> Path:
    path, model = folder / "adopted.onnx", onnx.load(shipped_model())
    for tensor in model.graph.initializer:
        tensor.name = tensor.name.replace("network.", "network/")
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("network", "file", "complaint"),
    [
        ("unet_pages", junk, "junk.onnx: expected an ONNX file"),
        ("unet_pages", lambda _: CASES / "h_plain.onnx", "expected a file of ppool export"),
        ("unet_pages", without_weights, "holds no weights that can be trained"),
        ("unet_small", lambda _: shipped_model(), "expected weights of UNetSmall, got those of "),
    ],
)
def test_other_files_are_refused(
    network: str, file: object, complaint: str, tmp_path: Path
) -> None:
    assert callable(file)
    with pytest.raises(ValueError, match=complaint):
        create_model(network, weights=file(tmp_path))
