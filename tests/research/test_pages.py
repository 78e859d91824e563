"""Drawn pages: exact labels, one page per seed, and a dataset that checks itself."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ppool.training.dataset import Sample
from research.pages import (
    PAGE_CLASSES,
    FontLibrary,
    PageDataset,
    draw_page,
    leaf,
    pictures,
    textures,
    write_dataset,
)
from research.pages.camera import without_unseen
from research.pages.classes import DESK, HANDWRITING, LINE, PAPER, PICTURE, STAMP, TEXT
from research.pages.draw import installed_fonts
from research.pages.frame import Frame, Placing
from research.pages.leaf import draw_leaf
from research.pages.photos import PHOTO_NAMES, TEXTURE_NAMES, WALLPAPER_NAMES, Photos
from research.pages.screen import _half_covered, draw_screen
from research.pages.sheet import Ink, Sheet, text_alpha
from research.rng import Rng

SIDE = 200
BLACK_TEXT = Ink(TEXT, (0, 0, 0))
BLACK_LINE = Ink(LINE, (0, 0, 0))


def white_sheet() -> Sheet:
    return Sheet(np.full((2 * SIDE, 2 * SIDE, 3), 255, np.uint8), unit=2.0)


def seen(sheet: Sheet, corners: list[tuple[int, int]] | None = None) -> Frame:
    """The sheet before a white desk, by default filling the frame exactly."""
    side = 2 * SIDE
    frame = Frame(np.full((side, side, 3), 255, np.uint8), unit=2.0)
    square = [(0, 0), (side, 0), (side, side), (0, side)]
    placing = Placing(np.asarray(corners or square, np.float32), curl=0.0, lifted=False)
    # This seed draws no crease across the sheet.
    frame.lay(Rng(1), sheet, placing)
    return frame


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.fixture(scope="module")
def fonts() -> FontLibrary:
    """Pillow's own face alone, so that the pages are the same on every machine."""
    return FontLibrary.find(folders=())


@pytest.fixture(scope="module")
def pages(fonts: FontLibrary) -> list[Sample]:
    return [draw_page(seed, fonts) for seed in range(16)]


def test_a_page_is_an_rgb_image_and_a_mask_of_known_labels(pages: list[Sample]) -> None:
    for page in pages:
        assert page.image.dtype == page.mask.dtype == np.uint8
        assert page.image.shape == (*page.mask.shape, 3)
        assert 359 <= max(page.mask.shape) <= 1301
        assert page.mask.max() < len(PAGE_CLASSES)


def test_all_classes_occur_within_a_few_pages(pages: list[Sample]) -> None:
    found = np.unique(np.concatenate([np.unique(page.mask) for page in pages]))
    assert found.tolist() == list(range(len(PAGE_CLASSES)))


def test_class_ids_are_their_positions_and_colors_differ() -> None:
    assert [entry.id for entry in PAGE_CLASSES] == list(range(7))
    assert len({entry.color for entry in PAGE_CLASSES}) == 7


def test_the_same_seed_draws_the_same_page_and_another_seed_another(
    pages: list[Sample], fonts: FontLibrary
) -> None:
    again = draw_page(3, fonts)
    np.testing.assert_array_equal(again.image, pages[3].image)
    np.testing.assert_array_equal(again.mask, pages[3].mask)
    assert pages[4].image.shape != again.image.shape or (pages[4].image != again.image).any()


def test_text_labels_are_the_ink_pixels(fonts: FontLibrary) -> None:
    sheet = white_sheet()
    font = fonts.faces[0].load(60)
    coverage, left, top = text_alpha(font, "Ink, exactly")
    sheet.put(coverage, 20 + left, 200 + top, BLACK_TEXT)
    frame = seen(sheet)
    small = cv2.resize(frame.rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    ink, mask = small[..., 0] < 128, frame.label((SIDE, SIDE))
    assert ink.any()
    assert iou(mask == TEXT, ink) > 0.85
    assert not (mask == DESK).any()


def test_labels_go_through_the_same_warp_as_colors() -> None:
    sheet = white_sheet()
    for x in range(40, 360, 40):
        sheet.rule((x, 30), (x, 370), 8, BLACK_LINE)
    frame = seen(sheet, [(60, 20), (390, 50), (340, 380), (10, 330)])
    small = cv2.resize(frame.rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    mask = frame.label((SIDE, SIDE))
    assert iou(mask == LINE, small[..., 0] < 140) > 0.85
    assert mask[0, 0] == DESK


def test_a_hairline_keeps_its_label_unbroken() -> None:
    sheet = white_sheet()
    sheet.rule((0, 201), (400, 216), 1, BLACK_LINE)
    mask = seen(sheet).label((SIDE, SIDE))
    assert (mask[:, 3:-3] == LINE).any(0).all()
    assert (mask == LINE).sum(0).max() <= 2


def test_text_wins_over_a_stamp_and_a_rule_on_its_own_strokes_only() -> None:
    sheet = white_sheet()
    sheet.rule((0, 200), (400, 200), 40, BLACK_LINE)
    sheet.rule((200, 0), (200, 400), 40, BLACK_TEXT)
    mask = seen(sheet).label((SIDE, SIDE))
    assert mask[100, 100] == TEXT
    assert mask[100, 20] == LINE
    assert mask[20, 20] == PAPER


def test_ink_that_cannot_be_seen_is_paper_but_pictures_stay() -> None:
    mask = np.asarray([[TEXT] * 20, [PICTURE] * 20], np.uint8).repeat(10, 0)
    flat = np.full((20, 20, 3), 0.5, np.float32)
    unseen = without_unseen(mask, flat, noise_level=0.01)
    assert set(unseen[:10].flat) == {PAPER}
    assert set(unseen[10:].flat) == {PICTURE}
    flat[:, 0] = 0.1
    bold = np.full((20, 20), TEXT, np.uint8)
    bold[:, [0, *range(12, 20)]] = PAPER
    np.testing.assert_array_equal(without_unseen(bold, flat, noise_level=0.01), bold)
    flat[:, ::4] = 0.1
    np.testing.assert_array_equal(without_unseen(mask, flat, noise_level=0.01), mask)


def test_the_test_photos_are_never_drawn_on() -> None:
    used = {Path(name).stem for name in PHOTO_NAMES + TEXTURE_NAMES + WALLPAPER_NAMES}
    assert used.isdisjoint({"page", "text", "astronaut", "coffee"})


def test_pictures_are_drawn_where_no_photo_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pictures, textures):
        monkeypatch.setattr(module, "load_photos", lambda: Photos((), ()))
    for seed in range(8):
        assert pictures.picture(Rng(seed), 40, 60).shape == (40, 60, 3)
        assert textures.desk(Rng(seed), 40, 60, 2.0).shape == (40, 60, 3)


def test_photographed_things_lie_on_pictures_without_their_background(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    thing = np.zeros((30, 20, 4), np.uint8)
    thing[10:20, 5:15] = 255
    monkeypatch.setattr(pictures, "load_photos", lambda: Photos((), (), (thing,)))
    seen = 0
    for seed in range(40):
        image = np.zeros((50, 60, 3), np.uint8)
        pictures._place(Rng(seed), image, 30)
        assert not image.any(2)[0, 0]
        seen = max(seen, int(image.any(2).sum()))
    assert 80 <= seen <= 140
    for scene in (pictures._crowd, pictures._street):
        assert scene(Rng(0), 40, 60).shape == (40, 60, 3)


def test_the_face_built_into_pillow_is_found_without_any_folder(fonts: FontLibrary) -> None:
    assert [face.path for face in fonts.faces] == [None]
    assert fonts.choose(Rng(0), "latin", handwritten=True) is None


def test_no_face_is_both_print_and_handwriting() -> None:
    installed = installed_fonts()
    print_faces, pen_faces = installed.having("latin"), installed.having("latin", True)
    assert set(print_faces).isdisjoint(pen_faces)


def test_a_library_without_print_faces_is_refused() -> None:
    with pytest.raises(ValueError, match=r"printed Latin face.*FontLibrary\.find"):
        FontLibrary(())


def test_a_dataset_is_written_resumed_and_never_mixed(tmp_path: Path) -> None:
    write_dataset(tmp_path, 3, seed=50, workers=1, val_share=0.34)
    image, mask = (tmp_path / "train" / kind / "00001.png" for kind in ("images", "masks"))
    kept, lost = (tmp_path / "train/masks/00000.png").stat().st_mtime_ns, mask.read_bytes()
    mask.unlink()
    write_dataset(tmp_path, 3, seed=50, workers=1, val_share=0.34)
    assert mask.read_bytes() == lost
    assert (tmp_path / "train/masks/00000.png").stat().st_mtime_ns == kept

    train, val = PageDataset(tmp_path / "train"), PageDataset(tmp_path / "val")
    assert (len(train), len(val)) == (2, 1)
    np.testing.assert_array_equal(train[1].image, draw_page(51).image)
    np.testing.assert_array_equal(train[1].mask, draw_page(51).mask)
    assert image.is_file()
    assert not list(tmp_path.rglob("*.part"))

    described = json.loads((tmp_path / "dataset.json").read_text("utf-8"))
    assert described["splits"]["train"] == {"seed": 50, "count": 2}
    assert described["splits"]["val"]["seed"] > 1 << 39
    assert described["classes"] == [entry.name for entry in PAGE_CLASSES]
    with pytest.raises(ValueError, match="draw into an empty folder"):
        write_dataset(tmp_path, 3, seed=51, workers=1)


def test_a_dataset_of_no_pages_or_workers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="count >= 1"):
        write_dataset(tmp_path, 0)
    with pytest.raises(ValueError, match="workers >= 1"):
        write_dataset(tmp_path, 1, workers=0)


def pair(folder: Path, mask: np.ndarray | None) -> Path:
    """A split of one 4 x 6 image and the given mask."""
    for kind, values in (("images", np.zeros((4, 6, 3), np.uint8)), ("masks", mask)):
        (folder / kind).mkdir()
        if values is not None:
            cv2.imwrite(str(folder / kind / "00000.png"), values)
    return folder


def test_an_empty_folder_and_a_missing_mask_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"images: expected PNG images, found none"):
        PageDataset(tmp_path)
    with pytest.raises(ValueError, match=r"masks.00000\.png: missing"):
        PageDataset(pair(tmp_path, None))


@pytest.mark.parametrize(
    ("mask", "complaint"),
    [
        (np.zeros((4, 6, 3), np.uint8), "expected 8-bit grey"),
        (np.zeros((4, 6), np.uint16), "expected 8-bit grey"),
        (np.zeros((5, 6), np.uint8), r"expected \(4, 6\) as its image, got \(5, 6\)"),
        (np.full((4, 6), 7, np.uint8), "expected labels 0 to 6, got 7"),
    ],
)
def test_a_wrong_mask_is_named_when_read(tmp_path: Path, mask: np.ndarray, complaint: str) -> None:
    pages = PageDataset(pair(tmp_path, mask))
    with pytest.raises(ValueError, match=rf"masks.00000\.png: {complaint}"):
        pages[0]


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    folder = pair(tmp_path, np.zeros((4, 6), np.uint8))
    (folder / "images" / "00000.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"images.00000\.png: not a readable image"):
        PageDataset(folder)[0]


def test_leaves_of_every_kind_are_drawn_with_labels_of_what_is_on_them(fonts: FontLibrary) -> None:
    leaves = [draw_leaf(Rng(seed), fonts) for seed in range(24)]
    assert all(leaf.image.shape == (*leaf.mask.shape, 3) for leaf in leaves)
    found = np.unique(np.concatenate([np.unique(leaf.mask) for leaf in leaves]))
    assert {PAPER, TEXT, HANDWRITING, LINE, STAMP, PICTURE} <= set(found.tolist())


def test_a_plain_surface_alone_is_labelled_as_the_blank_sheet_it_looks_like(
    monkeypatch: pytest.MonkeyPatch, fonts: FontLibrary
) -> None:
    rng = Rng(0)
    monkeypatch.setattr(rng, "weighted", lambda _: DESK)
    for striped, label in ((False, PAPER), (True, DESK)):
        rows = np.arange(512)[:, None, None] // 8 % 2 * 120 * striped
        surface = np.broadcast_to(100 + rows, (512, 512, 3)).astype(np.uint8)
        monkeypatch.setattr(leaf, "desk", lambda *_, surface=surface: surface)
        assert set(draw_leaf(rng, fonts).mask.flat) == {label}


def test_a_blurred_stroke_is_labelled_to_where_the_eye_sees_it_end() -> None:
    cover = np.zeros((60, 200), np.float32)
    cover[20:40] = 1
    sharp, soft = (leaf._visible(cover, blur)[:, 100].sum() for blur in (0.0, 1.8))
    # A blurred edge is 0.38 dark 0.31 standard deviations outside, here past one pixel's centre.
    assert sharp == 20
    assert soft == 22
    hairline = np.zeros((60, 200), np.float32)
    hairline[30] = 0.3
    assert set(np.flatnonzero(leaf._visible(hairline, 0.0)[:, 100])) == {30}


def test_screens_show_ink_that_can_be_read_dark_on_light_and_light_on_dark(
    fonts: FontLibrary,
) -> None:
    screens = [draw_screen(Rng(seed), fonts) for seed in range(12)]
    dark = 0
    for screen in screens:
        ink, paper = (np.isin(screen.mask, labels) for labels in ((TEXT, HANDWRITING), (PAPER,)))
        if ink.sum() > 200:
            grey = screen.image.mean(2)
            assert abs(np.median(grey[ink]) - np.median(grey[paper])) > 30
            dark += bool(np.median(grey[paper]) < 100)
    assert 0 < dark < 12


def test_a_pixel_of_small_type_is_ink_if_half_of_it_is() -> None:
    cover = np.zeros((9, 40), np.float32)
    cover[4, :20] = (0.2, 0.6, 0.45, 1.0) * 5
    cover[4, 28:31] = (0.1, 0.3, 0.26)
    found = _half_covered(cover)
    assert found[4, :20].tolist() == [False, True, False, True] * 5
    # A stroke too thin to cover half of any pixel keeps its core.
    assert set(np.flatnonzero(found[4, 20:]) + 20) == {29}


def test_stamps_may_hang_over_the_edge_of_the_view(fonts: FontLibrary) -> None:
    views = [leaf._Leaf(Rng(seed), fonts, 40.0, leaf._warp(Rng(0), 40.0)) for seed in range(6)]
    planes = [leaf._stamped(view) for view in views]
    assert all(plane.shape == (1024, 1024) and 0.2 < plane.max() <= 1 for plane in planes)
    assert any(plane[0].any() or plane[:, 0].any() or plane[-1].any() for plane in planes)


@pytest.mark.parametrize("corner", [(-100, -100), (450, 450), (-100, 450)])
def test_an_illustration_may_hang_over_any_edge(
    monkeypatch: pytest.MonkeyPatch, corner: tuple[int, int]
) -> None:
    rng = Rng(0)
    sizes = iter((60, 60, *corner))
    monkeypatch.setattr(rng, "whole", lambda low, high: next(sizes, low))
    monkeypatch.setattr(leaf, "picture", lambda _, h, w: np.zeros((h, w, 3), np.uint8))
    image, mask = np.ones((512, 512, 3), np.float32), np.full((512, 512), PAPER, np.uint8)
    leaf._illustrate(rng, image, mask)
    assert (mask == PICTURE).any()
    assert (image[mask == PICTURE] == 0).all()
    assert (image[mask == PAPER] == 1).all()
