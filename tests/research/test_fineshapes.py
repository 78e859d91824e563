"""Drawn scenes and objects: exact labels, one scene a seed, every class in reach."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ppool.training.dataset import Sample
from ppool.training.datasets import open_dataset
from research.fineshapes import (
    DETAIL_CLASSES,
    FINE_SHAPES_CLASSES,
    FineShapes,
    FineShapesObjects,
    draw_object,
    draw_scene,
)
from research.fineshapes.canvas import MAX_SURFACES, Canvas, Surface

CLASSES = len(FINE_SHAPES_CLASSES)
PLAIN = np.zeros((24, 32), np.float32)


@pytest.fixture(scope="module")
def scenes() -> list[Sample]:
    drawn = FineShapes(60, seed=0, height=128, width=128)
    return [drawn[index] for index in range(len(drawn))]


def bare() -> Canvas:
    """Black of class 0 to draw white of class 1 on, as surface 1."""
    canvas = Canvas(24, 32, [PLAIN])
    for label, level in enumerate((0, 255)):
        canvas.add(Surface(label, (level, level, level), (level, level, level)))
    return canvas


def test_a_scene_is_a_function_of_its_seed() -> None:
    scenes = FineShapes(3, seed=5, height=48, width=64)
    again = FineShapes(2, seed=6, height=48, width=64)
    for index in range(2):
        assert np.array_equal(scenes[index + 1].image, again[index].image)
        assert np.array_equal(scenes[index + 1].mask, again[index].mask)
    assert not np.array_equal(scenes[0].mask, scenes[1].mask)
    assert scenes[0].image.shape == (48, 64, 3)
    assert scenes[0].image.dtype == scenes[0].mask.dtype == np.uint8
    assert len(scenes) == 3
    with pytest.raises(IndexError):
        scenes[3]


def test_all_classes_occur_and_thin_ones_are_thin(scenes: list[Sample]) -> None:
    counts = sum(np.bincount(scene.mask.ravel(), minlength=256) for scene in scenes)
    assert np.flatnonzero(counts).tolist() == [entry.id for entry in FINE_SHAPES_CLASSES]
    details = list(DETAIL_CLASSES)
    assert 0.08 < counts[details].sum() / counts.sum() < 0.25
    square = np.ones((5, 5), np.uint8)
    thick = sum(
        int(cv2.morphologyEx((scene.mask == label).astype(np.uint8), cv2.MORPH_OPEN, square).sum())
        for scene in scenes
        for label in details
    )
    assert thick < 0.2 * counts[details].sum()


def iou_through(stride: int, scenes: list[Sample]) -> NDArray[np.float64]:
    """IoU of true labels averaged over ``stride`` x ``stride`` and stretched again."""
    common, either = np.zeros(CLASSES), np.zeros(CLASSES)
    for scene in scenes:
        one_hot = np.eye(CLASSES, dtype=np.float32)[scene.mask]
        small = cv2.resize(
            one_hot, None, fx=1 / stride, fy=1 / stride, interpolation=cv2.INTER_AREA
        )
        guess = cv2.resize(small, scene.mask.shape[::-1]).argmax(2)
        for label in range(CLASSES):
            common[label] += ((guess == label) & (scene.mask == label)).sum()
            either[label] += ((guess == label) | (scene.mask == label)).sum()
    return common / either


def test_lost_resolution_costs_thin_classes_most_of_their_iou(scenes: list[Sample]) -> None:
    iou = iou_through(8, scenes)
    thin = iou[list(DETAIL_CLASSES)].mean()
    large = np.delete(iou, DETAIL_CLASSES).mean()
    assert thin < 0.4
    assert large > 0.75


def test_colour_alone_does_not_tell_the_class(scenes: list[Sample]) -> None:
    def bins(scene: Sample) -> NDArray[np.intp]:
        return (scene.image.astype(np.intp) >> 5) @ np.asarray([64, 8, 1])

    counts = np.full((512, CLASSES), 0.01)
    for scene in scenes[:40]:
        np.add.at(counts, (bins(scene).ravel(), scene.mask.ravel()), 1)
    likeliest = (counts / counts.sum(0)).argmax(1)
    mask = np.concatenate([scene.mask.ravel() for scene in scenes[40:]])
    guess = np.concatenate([likeliest[bins(scene)].ravel() for scene in scenes[40:]])
    recalls = [(guess[mask == label] == label).mean() for label in range(CLASSES)]
    assert np.mean(recalls) < 2 / CLASSES


def test_a_pixel_has_the_label_of_what_covers_its_centre() -> None:
    canvas = bare()
    canvas.polygon([(0, 0), (32, 0), (32, 24), (0, 24)], 0)
    corners = np.asarray([(3.2, 2.1), (28.4, 8.3), (11.9, 21.7)])
    canvas.polygon([(float(x), float(y)) for x, y in corners], 1)
    rows, columns = np.mgrid[:24, :32] + 0.5
    along = np.roll(corners, -1, 0) - corners
    across = [
        (x * (rows - c[1]) - y * (columns - c[0])) / np.hypot(x, y)
        for (x, y), c in zip(along, corners, strict=True)
    ]
    inside = np.min(across, 0)
    # Corners and edges fall on whole dots, so within half a dot either label may be right.
    plain = abs(inside) > 0.5
    np.testing.assert_array_equal(canvas.labels()[plain] == 1, inside[plain] > 0)


def test_an_edge_pixels_colour_is_the_share_that_is_covered() -> None:
    canvas = bare()
    canvas.polygon([(0, 0), (10, 0), (10, 24), (0, 24)], 1)
    colors, labels = canvas.colors(), canvas.labels()
    assert colors.shape == (24, 32, 3)
    assert np.unique(colors[:, :10]).tolist() == [255]
    # OpenCV fills the outline's dots too: a third of the next pixel.
    np.testing.assert_allclose(colors[:, 10], 255 / 3, atol=1)
    assert np.unique(colors[:, 11:]).tolist() == [0]
    assert (labels[:, 10] == 0).all()


@given(angle=st.floats(0, np.pi), width=st.floats(0.1, 4), x=st.floats(12, 20), y=st.floats(9, 15))
def test_a_line_is_unbroken_and_as_wide_as_asked(
    angle: float, width: float, x: float, y: float
) -> None:
    canvas = bare()
    reach = 40 * np.cos(angle), 40 * np.sin(angle)
    canvas.stroke([(x - reach[0], y - reach[1]), (x + reach[0], y + reach[1])], width, 1)
    labels = canvas.labels()
    count, _ = cv2.connectedComponents(labels, connectivity=8)
    assert count == 2
    across = 0 if abs(np.cos(angle)) > abs(np.sin(angle)) else 1
    widths = labels.sum(across)
    most = (max(width, 1) + 1) * np.sqrt(2) + 1
    assert widths.max() <= most
    # A line this flat meets every column.
    if across == 0 and 9 - 20 * abs(np.tan(angle)) > 0:
        assert widths.min() >= 1


def test_a_scene_has_room_for_256_surfaces() -> None:
    canvas = bare()
    for _ in range(MAX_SURFACES - 2):
        canvas.add(Surface(1, (1, 1, 1), (1, 1, 1)))
    with pytest.raises(ValueError, match="at most 256 surfaces"):
        canvas.add(Surface(1, (1, 1, 1), (1, 1, 1)))


def test_an_object_is_one_class_on_a_background() -> None:
    objects = FineShapesObjects(100, seed=0, size=32)
    labels = [objects[index][1] for index in range(len(objects))]
    assert set(labels) == {entry.id for entry in FINE_SHAPES_CLASSES}
    image, label = draw_object(7, 32)
    assert (image.dtype, image.shape, label) == (np.uint8, (32, 32, 3), labels[7])


@pytest.mark.parametrize(("seed", "height", "width"), [(-1, 64, 64), (0, 31, 64), (0, 64, 0)])
def test_impossible_scenes_are_refused(seed: int, height: int, width: int) -> None:
    with pytest.raises(ValueError, match="expected a seed of at least 0 and a height and width"):
        draw_scene(seed, height, width)
    with pytest.raises(ValueError, match="count: expected at least 1, got 0"):
        FineShapes(0, seed=0, height=64, width=64)


def test_unknown_data_sets_and_splits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data set: expected one of .*fineshapes"):
        open_dataset("imagenet", None, "train")
    with pytest.raises(ValueError, match="expected train or val, got 'test'"):
        open_dataset("fineshapes", None, "test")


def test_the_standard_splits_share_no_scene() -> None:
    training, held_out = (open_dataset("fineshapes", None, split) for split in ("train", "val"))
    assert (len(training), len(held_out)) == (2000, 500)
    assert training[0].mask.shape == held_out[0].mask.shape == (128, 128)
    assert not np.array_equal(training[0].mask, held_out[0].mask)
