"""The border of ink on drawn strokes of known grey, where a fixed threshold goes wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from ppool.export import Behind, export_model
from ppool.export._behind import Moved
from ppool.export._ink import Ink
from ppool.runtime import LOGITS, make_session


def strokes(ink: float, ground: float) -> tuple[Tensor, Tensor]:
    """A photo of bars with soft edges, [1, 3, 96, 128] of 0 to 255; where ink is two fifths."""
    rows, columns = np.mgrid[:96, :128]
    # Slanted, so that edges fall everywhere between pixels.
    covered = gaussian_filter((columns + 0.3 * rows) % 17 < 6, 1.5, output=np.float64)
    grey = 255 * (ground + (ink - ground) * covered)
    photo = np.broadcast_to(grey, (1, 3, *grey.shape)).astype(np.float32)
    return torch.from_numpy(photo.copy()), torch.from_numpy(covered > 0.4)


def judged_by(level: float, photo: Tensor, *, light: bool = False) -> Tensor:
    """Logits of ground and ink from a network that knows one level of grey only."""
    margin = 10 * (level - photo[:, :1] / 255) * (-1 if light else 1)
    return torch.cat((torch.zeros_like(margin), margin), 1)


@pytest.mark.parametrize(
    ("ink", "ground", "level"),
    [
        pytest.param(0.7, 0.9, 0.76, id="faint, found too thin"),
        pytest.param(0.1, 0.9, 0.78, id="dark, found too fat"),
        pytest.param(0.9, 0.2, 0.7, id="light on dark, too thin"),
    ],
)
def test_the_border_moves_to_where_ink_covers_two_fifths(
    ink: float, ground: float, level: float
) -> None:
    photo, truth = strokes(ink, ground)
    logits = judged_by(level, photo, light=ink > ground)
    before, after = (
        int((found.argmax(1)[0].bool() != truth).sum())
        for found in (logits, Moved([Ink([1], 2)])(logits, photo))
    )
    assert before > 500
    assert after < 0.75 * before


@pytest.mark.parametrize("light", [False, True])
def test_small_type_on_a_rendered_page_ends_at_half_a_pixel(light: bool) -> None:
    covered = np.zeros((96, 128), np.float64)
    # Strokes of two whole pixels between a fifth and two fifths of one, and much ground.
    for left in range(4, 60, 12):
        covered[8:40, left : left + 4] = (0.2, 1, 1, 0.4)
    grey = np.broadcast_to(255 * (covered if light else 1 - covered), (1, 3, 96, 128))
    photo = torch.from_numpy(grey.astype(np.float32).copy())
    truth = torch.from_numpy(covered > 0.5)
    # The network marks what is a third ink.
    logits = judged_by(0.35 if light else 0.65, photo, light=light)
    noise = 2 * np.random.default_rng(0).standard_normal((1, 1, 96, 128)).astype(np.float32)
    rendered, photographed = (
        Moved([Ink([1], 2)])(logits, seen).argmax(1)[0].bool()
        for seen in (photo, photo + torch.from_numpy(noise))
    )
    assert torch.equal(rendered, truth)
    assert (photographed & ~truth).sum() > 100


def photographed(dark: NDArray[Any], *, light: bool) -> Tensor:
    """Marks so much darker than their ground, of 1, or lighter: float32 [1, 3, H, W] to 255."""
    grey = 255 * (0.1 + dark if light else 0.9 - dark)
    return torch.from_numpy(np.broadcast_to(grey, (1, 3, *dark.shape)).astype(np.float32).copy())


@pytest.mark.parametrize("light", [False, True])
def test_ink_of_the_other_side_loses_and_faint_ink_of_this_side_does_not(light: bool) -> None:
    rows, columns = np.mgrid[:192, :192]
    # Slanted, so that edges fall everywhere between pixels.
    bars = ((columns + 0.3 * rows) % 24 < 6).astype(np.float64)
    third = np.arange(192)[:, None] // 64
    front, faint = 0.8 * bars * (third == 0), 0.3 * bars * (third == 1)
    through = gaussian_filter(0.3 * bars, 2.5) * (third == 2)
    # Lenses leave no edge within a pixel; paper makes all the rest of what comes through it.
    dark = gaussian_filter(front + faint, (0, 0.7)) + through
    photo = photographed(dark, light=light)
    margin = torch.from_numpy(np.where(dark > 0.12, 1.0, -6.0).astype(np.float32))[None, None]
    logits = torch.cat((torch.zeros_like(margin), margin), 1)
    found = Moved([Ink([1], 2)])(logits, photo).argmax(1)[0].bool()
    there = torch.from_numpy(dark > 0.2)
    parts = [slice(64 * part + 4, 64 * part + 60) for part in range(3)]
    left = [float(found[part][there[part]].float().mean()) for part in parts]
    assert left[0] > 0.99
    assert left[1] > 0.9
    assert left[2] < 0.1


@pytest.mark.parametrize("light", [False, True])
def test_of_light_strokes_those_lose_that_the_network_doubts(light: bool) -> None:
    bars = np.arange(192) % 24 < 6
    third = np.arange(192)[:, None] // 64
    dark = gaussian_filter(np.array([0.8, 0.3, 0.3])[third] * bars, (0, 0.7))
    photo = photographed(dark, light=light)
    sure = np.where(dark > 0.12, np.array([8.0, 7.0, 1.0])[third], -6.0)
    logits = torch.stack((torch.zeros(192, 192), torch.from_numpy(sure.astype(np.float32))))[None]
    found = Moved([Ink([1], 2)])(logits, photo).argmax(1)[0].bool()
    there = torch.from_numpy(dark > 0.2)
    parts = [slice(64 * part + 12, 64 * part + 52) for part in range(3)]
    left = [float(found[part][there[part]].float().mean()) for part in parts]
    assert left[0] > 0.99
    assert left[1] > 0.99
    assert left[2] < 0.01


def test_every_neighbourhood_has_its_own_greys() -> None:
    (light, truth), (shaded, _) = strokes(0.1, 0.9), strokes(0.2, 0.55)
    photo = torch.cat((light, light, light, shaded, shaded, shaded), 3)
    # The network knows of the shadow, but marks what is half ink.
    logits = 2 * torch.cat(
        (judged_by(0.5, photo[..., :384]), judged_by(0.375, photo[..., 384:])), 3
    )
    before, after = (
        (found.argmax(1)[0].bool() != truth.repeat(1, 6)).reshape(96, 2, 384).sum((0, 2))
        for found in (logits, Moved([Ink([1], 2)])(logits, photo))
    )
    assert (before > 1000).all()
    assert (after < 0.75 * before).all()


def test_other_classes_keep_their_logits_and_a_blank_page_its_own() -> None:
    photo, _ = strokes(0.3, 0.9)
    ground, ink = judged_by(0.6, photo).split(1, 1)
    moved = Moved([Ink([1], 3)])(torch.cat((ground, ink, ground), 1), photo)
    torch.testing.assert_close(moved[:, [0, 2]], torch.cat((ground, ground), 1))
    assert (moved[:, 1:2] - ink).abs().max() > 1
    blank = torch.full((1, 3, 64, 64), 200.0)
    logits = judged_by(0.3, blank)
    torch.testing.assert_close(Moved([Ink([1], 2)])(logits, blank), logits)


def test_every_page_of_a_batch_has_its_own_greys() -> None:
    photos = torch.cat([strokes(*greys)[0] for greys in ((0.1, 0.9), (0.6, 0.8), (0.8, 0.3))])
    logits = judged_by(0.6, photos)
    together = Moved([Ink([1], 2)])(logits, photos)
    alone = [Moved([Ink([1], 2)])(logits[i : i + 1], photos[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


CLASSES, MEAN, STD = ("paper", "ink"), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@pytest.mark.parametrize("ink", [0.0, -9.0], ids=["much ink", "no ink"])
def test_the_file_moves_the_logits_as_pytorch_does(tmp_path: Path, ink: float) -> None:
    torch.manual_seed(3)
    network, path = nn.Conv2d(3, 2, 3, padding=1), tmp_path / "moved.onnx"
    network.bias = nn.Parameter(torch.tensor([0.0, ink]))
    export_model(network, path, classes=CLASSES, mean=MEAN, std=STD, behind=Behind(["ink"]))
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    (moved,) = make_session(path).run([LOGITS], {"image": image})
    x = torch.from_numpy(image).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        plain = network((x / 255 - 0.5) / 0.25)
    expected = Moved([Ink([1], 2)])(plain, x)
    assert ((expected - plain).abs().max() > 0.1) == (ink == 0.0)
    torch.testing.assert_close(torch.from_numpy(moved), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("network", "names", "reason"),
    [
        (nn.Conv2d(3, 2, 1), ["pen"], "ink: expected one of the classes paper, ink, got"),
        (nn.Conv2d(3, 2, 1), CLASSES, "ink: expected one of the classes paper, ink, got"),
        (nn.Conv2d(3, 2, 2, 2), ["ink"], "behind: expected logits for every pixel, got"),
    ],
)
def test_what_ink_does_not_fit_is_said(
    tmp_path: Path, network: nn.Module, names: list[str], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        export_model(
            network, tmp_path / "x.onnx", classes=CLASSES, mean=MEAN, std=STD, behind=Behind(names)
        )
