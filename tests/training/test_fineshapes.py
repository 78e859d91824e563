"""Drawn scenes and objects: exact labels, one scene a seed, every class in reach."""

import numpy as np
import pytest

from training.datasets import open_dataset
from training.fineshapes import DETAIL_CLASSES, FINE_SHAPES_CLASSES, FineShapes, FineShapesObjects


def test_a_scene_is_a_function_of_its_seed() -> None:
    scenes = FineShapes(3, seed=5, height=48, width=64)
    again = FineShapes(2, seed=6, height=48, width=64)
    for index in range(2):
        assert np.array_equal(scenes[index + 1].image, again[index].image)
        assert np.array_equal(scenes[index + 1].mask, again[index].mask)
    assert not np.array_equal(scenes[0].mask, scenes[1].mask)
    assert scenes[0].image.shape == (48, 64, 3)
    assert scenes[0].image.dtype == scenes[0].mask.dtype == np.uint8


def test_all_classes_occur_and_thin_ones_are_thin() -> None:
    scenes = FineShapes(12, seed=0, height=128, width=128)
    counts = sum(np.bincount(scenes[i].mask.ravel(), minlength=256) for i in range(12))
    assert np.flatnonzero(counts).tolist() == [entry.id for entry in FINE_SHAPES_CLASSES]
    assert counts[list(DETAIL_CLASSES)].sum() < 0.3 * counts.sum()


def test_an_object_is_one_class_on_a_background() -> None:
    objects = FineShapesObjects(40, seed=0, size=32)
    labels = [objects[i][1] for i in range(40)]
    assert set(labels) <= {entry.id for entry in FINE_SHAPES_CLASSES}
    assert len(set(labels)) > 5
    assert objects[0][0].shape == (32, 32, 3)


def test_unknown_data_sets_and_splits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data set: expected one of .*fineshapes"):
        open_dataset("imagenet", None, "train")
    with pytest.raises(ValueError, match="expected train or val, got 'test'"):
        open_dataset("fineshapes", None, "test")
