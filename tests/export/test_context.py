"""What surroundings say: names of alike classes agree within blocks, photographs are whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ppool.export import Behind, export_model
from ppool.export._behind import Moved
from ppool.export._context import Blocks, Whole
from ppool.runtime import LOGITS, make_session

PAPER, PRINT, PEN = range(3)
WIDE = 1024


def page(names: list[tuple[slice, float]], words: slice = slice(0, 512, 8)) -> Tensor:
    """Logits of lines of print and pen on paper, [1, 3, 512, 1024]; above 0 is print."""
    rng = np.random.default_rng(0)
    ink = np.zeros((512, WIDE), bool)
    ink[words] = rng.random((64, 1)) < 2
    margin = np.zeros((512, WIDE))
    for columns, mean in names:
        margin[:, columns] = mean
    # Every word, 32 pixels wide, is judged on its own, and often wrongly.
    margin += np.repeat(np.repeat(rng.normal(0, 1.5, (64, WIDE // 32)), 8, 0), 32, 1)
    logits = np.stack((np.where(ink, -4, 4), margin / 2, -margin / 2))
    return torch.from_numpy(logits[None].astype(np.float32))


def named(logits: Tensor) -> np.ndarray:
    """Which of both it is, where there is ink."""
    found: np.ndarray = logits.argmax(1)[0].numpy()
    return found[::8]


IMAGE = torch.zeros(1, 3, 512, WIDE)


def test_words_are_called_what_those_around_them_are() -> None:
    logits = page([(slice(0, 512), 1.0), (slice(512, WIDE), -1.0)])
    truth = np.where(np.arange(WIDE) < 512, PRINT, PEN)[None]
    before, after = (
        (named(found) == truth).mean()
        for found in (logits, Moved([Blocks([PRINT, PEN], 3)])(logits, IMAGE))
    )
    assert 0.6 < before < 0.85
    assert after > before + 0.1


def test_what_is_surely_one_of_them_stays_so_amid_the_other_and_ink_stays_ink() -> None:
    logits = page([(slice(0, WIDE), 3.0)])
    logits[:, 1, :, 240:272], logits[:, 2, :, 240:272] = -6, 6
    moved = Moved([Blocks([PRINT, PEN], 3)])(logits, IMAGE)
    assert (named(moved)[:, 240:272] == PEN).all()
    ink = (found[0, 1:].amax(0) > found[0, 0] for found in (logits, moved))
    assert torch.equal(*ink)


def test_a_note_of_another_ink_is_not_called_what_the_print_around_it_is() -> None:
    logits = page([(slice(0, WIDE), 3.0), (slice(200, 328), -1.5)])
    darker = IMAGE.clone()
    darker[...] = 150
    darker[..., 200:328] = 40
    alike, apart = (
        (named(Moved([Blocks([PRINT, PEN], 3)])(logits, image))[:, 200:328] == PEN).mean()
        for image in (IMAGE, darker)
    )
    assert alike < 0.5
    assert apart > 0.95


@pytest.mark.parametrize(("share", "grows"), [(0.95, True), (0.4, False)])
def test_a_photograph_is_one_all_over_and_a_page_with_one_is_a_page(
    share: float, grows: bool
) -> None:
    logits = torch.zeros(1, 2, 64, 200)
    logits[:, 1] = 4
    logits[:, 0, :, round(200 * share) :] = 7
    moved = Moved([Whole(1, 2)])(logits, torch.zeros(1, 3, 64, 200))
    assert bool((moved.argmax(1) == 1).all()) == grows
    torch.testing.assert_close(moved[:, 0], logits[:, 0])
    if not grows:
        torch.testing.assert_close(moved, logits)


@pytest.mark.parametrize(("surely", "stays"), [(0.3, False), (4.0, True)])
def test_what_is_surely_nowhere_of_a_class_is_not_of_it(surely: float, stays: bool) -> None:
    margin = torch.full((1, 1, 128, 256), -3.0)
    margin[..., 96:] = 0.3
    margin[..., :64, 128:192] = surely
    logits = torch.cat((torch.zeros_like(margin), margin), 1)
    moved = Moved([Whole(1, 2)])(logits, torch.zeros(1, 3, 128, 256))
    assert torch.equal(moved.argmax(1) == 1, (margin > 0)[:, 0] & stays)


CLASSES, GREY = ("paper", "print", "pen"), (0.5, 0.5, 0.5)


@pytest.mark.parametrize("size", [(64, 96), (32, 320)])
def test_the_file_moves_the_logits_as_pytorch_does(tmp_path: Path, size: tuple[int, int]) -> None:
    torch.manual_seed(3)
    network, path = nn.Conv2d(3, 3, 3, padding=1), tmp_path / "moved.onnx"
    with torch.no_grad():
        network.weight.mul_(4)
    behind = Behind(["print", "pen"], ["print", "pen"], "paper")
    export_model(network, path, classes=CLASSES, mean=GREY, std=GREY, behind=behind)
    image = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    (moved,) = make_session(path).run([LOGITS], {"image": image})
    x = torch.from_numpy(image).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        plain = network((x / 255 - 0.5) / 0.5)
        layer = behind.layer(make_session(path).metadata.classes)
        assert layer is not None
        expected = layer(plain, x)
    assert (expected - plain).abs().max() > 0.1
    torch.testing.assert_close(torch.from_numpy(moved), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("behind", "reason"),
    [
        (Behind(blocks=["print"]), "blocks: expected 2 to 3 of the classes paper, print, pen, got"),
        (Behind(blocks=["print", "ink"]), "blocks: expected 2 to 3 of the classes"),
        (Behind(whole="photo"), "whole: expected one of the classes paper, print, pen, got photo"),
    ],
)
def test_classes_that_do_not_fit_are_said(tmp_path: Path, behind: Behind, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        export_model(
            nn.Conv2d(3, 3, 1), tmp_path / "x.onnx", classes=CLASSES, mean=GREY, std=GREY,
            behind=behind,
        )  # fmt: skip
