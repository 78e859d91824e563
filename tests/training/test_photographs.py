"""CamVid, DRIVE, EM and DIBCO in their true layouts, in tiny files made here and real ones.

PPOOL_DATA names the folder that holds the real ones.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from ppool.training.dataset import IGNORE
from ppool.training.datasets import open_dataset

DATA = os.environ.get("PPOOL_DATA")
real = pytest.mark.skipif(not DATA, reason="PPOOL_DATA names no folder")


def save(path: Path, values: NDArray[np.uint8], mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = PIL.Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path)


def photo(value: int) -> NDArray[np.uint8]:
    return np.full((4, 6, 3), value, np.uint8)


def row(*values: int) -> NDArray[np.uint8]:
    """A mask of 4 x 6 pixels whose rows are all alike."""
    return np.tile(np.resize(np.asarray(values, np.uint8), 6), (4, 1))


def test_camvid_has_eleven_classes_and_does_not_count_void(tmp_path: Path) -> None:
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        for index in range(count):
            save(tmp_path / f"CamVid/{split}/{split}_{index}.png", photo(index))
            values = row(0, 10, 11) if index == 0 else row(2)
            save(tmp_path / f"CamVid/{split}annot/{split}_{index}.png", values)
    sizes = {"train": 2, "val": 1, "trainval": 3, "test": 1}
    for split, size in sizes.items():
        assert len(open_dataset("camvid", tmp_path, split)) == size
    found = open_dataset("camvid", tmp_path, "trainval")
    assert [entry.name for entry in found.classes][2::4] == ["pole", "sign", "bicyclist"]
    assert [found[index].mask[0, :3].tolist() for index in range(3)] == [
        [0, 10, IGNORE], [2, 2, 2], [0, 10, IGNORE],
    ]  # fmt: skip
    assert found[1].image.shape == (4, 6, 3)
    # The folder itself serves as well as the one above it.
    assert len(open_dataset("camvid", tmp_path / "CamVid", "train")) == 2


def write_drive(root: Path, split: str, numbers: range, word: str) -> None:
    for number in numbers:
        save(root / f"{split}/images/{number:02d}_{word}.tif", photo(number))
        save(root / f"{split}/1st_manual/{number:02d}_manual1.gif", row(255, 0, 255))
        save(root / f"{split}/mask/{number:02d}_{word}_mask.gif", row(0, 255, 255))


def test_drive_counts_vessels_inside_the_field_of_view(tmp_path: Path) -> None:
    write_drive(tmp_path / "DRIVE", "training", range(21, 27), "training")
    write_drive(tmp_path / "DRIVE", "test", range(1, 3), "test")
    sizes = {"train": 2, "val": 4, "trainval": 6, "test": 2}
    for split, size in sizes.items():
        found = open_dataset("drive", tmp_path, split)
        assert len(found) == size
        assert found[0].mask[0, :3].tolist() == [IGNORE, 0, 1]
    assert open_dataset("drive", tmp_path, "val")[0].image[0, 0, 0] == 23
    save(tmp_path / "DRIVE/test/mask/02_test_mask.gif", row(255)[1:])
    with pytest.raises(ValueError, match=r"02_test_mask\.gif: expected the size of 02_test\.tif"):
        open_dataset("drive", tmp_path, "test")[1]
    (tmp_path / "DRIVE/test/1st_manual/01_manual1.gif").unlink()
    with pytest.raises(FileNotFoundError, match=r"01_manual1\.png: missing; unpack DRIVE"):
        open_dataset("drive", tmp_path, "test")


def test_em_is_split_by_depth(tmp_path: Path) -> None:
    for index in range(30):
        save(tmp_path / f"em/image/{index}.png", photo(index)[..., 0])
        save(tmp_path / f"em/label/{index}.png", row(0, 255))
    firsts = {"train": 0, "val": 20, "trainval": 0, "test": 25}
    for split, first in firsts.items():
        found = open_dataset("em", tmp_path, split)
        assert found[0].image[0, 0].tolist() == [first] * 3
        assert found[len(found) - 1].mask[0, :2].tolist() == [1, 0]
    assert [len(open_dataset("em", tmp_path, s)) for s in firsts] == [20, 5, 25, 5]
    (tmp_path / "em/image/7.png").unlink()
    with pytest.raises(ValueError, match="image: expected 30 slices, got 29"):
        open_dataset("em", tmp_path, "val")


def test_pages_are_split_by_the_year_of_their_contest(tmp_path: Path) -> None:
    for year, mode in ((2009, "1"), (2011, "L"), (2012, "1"), (2014, "1")):
        save(tmp_path / f"dibco/DIBCO{year}_H01_source.jpg", photo(200))
        save(tmp_path / f"dibco/DIBCO{year}_H01_target.png", row(0, 255), mode)
    for split, size in {"train": 2, "val": 1, "trainval": 3, "test": 1}.items():
        found = open_dataset("dibco", tmp_path, split)
        assert len(found) == size
        assert all(found[i].mask[0, :2].tolist() == [1, 0] for i in range(size))
    (tmp_path / "dibco/DIBCO2014_H01_target.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"DIBCO2014_H01_target\.png: missing; copy"):
        open_dataset("dibco", tmp_path, "test")


@real
@pytest.mark.parametrize(
    ("name", "sizes", "share"),
    [
        # Shares of a class in training pixels, from the data's own description.
        ("camvid", {"train": 367, "val": 101, "test": 233, "trainval": 468}, (2, 0.010, 0.003)),
        ("drive", {"train": 16, "val": 4, "test": 20, "trainval": 20}, (1, 0.127, 0.02)),
        ("em", {"train": 20, "val": 5, "test": 5, "trainval": 25}, (1, 0.22, 0.03)),
        ("dibco", {"train": 36, "val": 14, "test": 25, "trainval": 50}, None),
    ],
)
def test_the_real_sets_have_their_published_sizes_and_shares(
    name: str, sizes: dict[str, int], share: tuple[int, float, float] | None
) -> None:
    for split, size in sizes.items():
        assert len(open_dataset(name, Path(str(DATA)), split)) == size
    found = open_dataset(name, Path(str(DATA)), "train")
    masks = [found[index].mask for index in range(0, len(found), max(1, len(found) // 60))]
    values = np.concatenate([mask.ravel() for mask in masks])
    assert set(np.unique(values)) <= {*range(len(found.classes)), IGNORE}
    if share is not None:
        label, expected, within = share
        assert (values[values != IGNORE] == label).mean() == pytest.approx(expected, abs=within)
