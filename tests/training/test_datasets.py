"""Data sets on disk: FineShapes written as each of them and read back, and broken files named."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import scipy.io
from typer.testing import CliRunner

from ppool.metadata import LabelClass
from ppool.training.dataset import IGNORE, Sample
from ppool.training.datasets import DATASETS, open_dataset
from ppool.training.datasets.ade20k import ade20k_classes
from ppool.training.datasets.cityscapes import CITYSCAPES_CLASSES, LABEL_IDS
from ppool.training.datasets.pascal_voc import VOC_CLASSES, trainaug
from research.__main__ import app
from research.fineshapes import DETAIL_CLASSES, FINE_SHAPES_CLASSES, draw_scene
from research.layouts import CITYSCAPES_IDS, Plan, write_fineshapes

PLAN = Plan(count=11, height=48, width=64, seed=3)
LAYOUT = {"voc": "voc", "voc-aug": "voc", "cityscapes": "cityscapes", "ade20k": "ade20k"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three layouts in one folder."""
    root = tmp_path_factory.mktemp("data")
    for layout in sorted(set(LAYOUT.values())):
        write_fineshapes(root, layout, PLAN)
    return root


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """A function that writes one layout of a few scenes where a test may damage it."""

    def write(layout: str) -> Path:
        write_fineshapes(tmp_path, layout, Plan(count=5, height=40, width=32))
        return tmp_path

    return write


def scenes(split: str) -> list[Sample]:
    drawn = PLAN.splits[split]
    return [drawn[index] for index in range(len(drawn))]


def decoded(path: Path) -> np.ndarray:
    return np.asarray(PIL.Image.open(path))


@pytest.mark.parametrize("split", ["train", "val"])
def test_cityscapes_gives_back_images_and_train_ids_exactly(written: Path, split: str) -> None:
    found, expected = open_dataset("cityscapes", written, split), scenes(split)
    assert len(found) == len(expected)
    for index, scene in enumerate(expected):
        np.testing.assert_array_equal(found[index].image, scene.image)
        ids = np.vectorize(CITYSCAPES_IDS.get)(scene.mask)
        np.testing.assert_array_equal(found[index].mask, ids)


@pytest.mark.parametrize("split", ["train", "val"])
def test_ade20k_gives_back_labels_exactly_and_the_jpeg_as_decoded(
    written: Path, split: str
) -> None:
    found, expected = open_dataset("ade20k", written, split), scenes(split)
    folder = written / "ADEChallengeData2016/images"
    files = sorted((folder / {"train": "training", "val": "validation"}[split]).iterdir())
    assert len(found) == len(expected) == len(files)
    for index, scene in enumerate(expected):
        np.testing.assert_array_equal(found[index].image, decoded(files[index]))
        np.testing.assert_array_equal(found[index].mask, scene.mask)
        assert abs(found[index].image.astype(float) - scene.image).mean() < 5


def test_voc_masks_are_the_palette_indices_with_255_along_outlines(written: Path) -> None:
    found, expected = open_dataset("voc", written, "val"), scenes("val")
    voc = written / "VOCdevkit/VOC2012"
    names = (voc / "ImageSets/Segmentation/val.txt").read_text().split()
    assert len(found) == len(expected) == len(names)
    for index, (name, scene) in enumerate(zip(names, expected, strict=True)):
        image = PIL.Image.open(voc / f"SegmentationClass/{name}.png")
        assert image.mode == "P"
        assert image.getpalette()[255 * 3 : 256 * 3] == [224, 224, 192]
        mask = found[index].mask
        np.testing.assert_array_equal(mask, np.asarray(image))
        np.testing.assert_array_equal(found[index].image, decoded(voc / f"JPEGImages/{name}.jpg"))
        labelled = mask != IGNORE
        np.testing.assert_array_equal(mask[labelled], scene.mask[labelled])
        assert not labelled.all()
        assert not np.isin(scene.mask[~labelled], DETAIL_CLASSES).any()


def test_voc_aug_takes_vocs_own_masks_first_and_sbds_for_the_rest(written: Path) -> None:
    found, expected = open_dataset("voc-aug", written, "train"), scenes("train")
    assert len(found) == len(expected)
    with_outlines = 0
    for index, scene in enumerate(expected):
        labelled = found[index].mask != IGNORE
        np.testing.assert_array_equal(found[index].mask[labelled], scene.mask[labelled])
        with_outlines += not labelled.all()
    assert with_outlines == len(open_dataset("voc", written, "train")) == (len(expected) + 1) // 2
    assert len(open_dataset("voc-aug", written, "val")) == len(scenes("val"))
    assert len(open_dataset("voc", written, "trainval")) == with_outlines + len(scenes("val"))


def put_lists(root: Path, lists: dict[str, list[str]]) -> None:
    for name, entries in lists.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(entries) + "\n")


def test_trainaug_is_what_both_train_on_less_what_voc_holds_out(tmp_path: Path) -> None:
    lists = "VOCdevkit/VOC2012/ImageSets/Segmentation"
    put_lists(
        tmp_path,
        {
            f"{lists}/train.txt": ["2007_b", "2007_a"],
            f"{lists}/val.txt": ["2007_v", "2008_w"],
            "benchmark_RELEASE/dataset/train.txt": ["2007_a", "2008_w", "2009_c"],
            "benchmark_RELEASE/dataset/val.txt": ["2007_v", "2010_d"],
        },
    )
    assert trainaug(tmp_path) == ["2007_a", "2007_b", "2009_c", "2010_d"]


def test_an_sbd_mask_is_read_as_matlab_wrote_it(copied: Callable[[str], Path]) -> None:
    root = copied("voc")
    path = next((root / "benchmark_RELEASE/dataset/cls").glob("2007*.mat"))
    mask = np.arange(40 * 32, dtype=np.uint8).reshape(40, 32) % 21
    fields = [("Boundaries", object), ("Segmentation", object), ("CategoriesPresent", object)]
    record = np.zeros((1, 1), fields)
    record[0, 0] = (np.zeros((20, 1), object), mask, np.arange(1, 21, dtype=np.uint8))
    scipy.io.savemat(path, {"GTcls": record})
    names = trainaug(root)
    found = open_dataset("voc-aug", root, "train")[names.index(path.stem)]
    np.testing.assert_array_equal(found.mask, mask)


def test_merged_masks_are_used_where_they_are(copied: Callable[[str], Path]) -> None:
    root = copied("voc")
    voc = root / "VOCdevkit/VOC2012"
    merged = voc / "SegmentationClassAug"
    merged.mkdir()
    names = trainaug(root)
    for name in names:
        PIL.Image.fromarray(np.full((40, 32), 7, np.uint8)).save(merged / f"{name}.png")
    found = open_dataset("voc-aug", root, "train")
    assert len(found) == len(names)
    assert np.unique(found[1].mask).tolist() == [7]
    put_lists(voc, {"ImageSets/Segmentation/trainaug.txt": names[:1]})
    assert len(open_dataset("voc-aug", root, "train")) == 1


def test_label_train_ids_are_used_where_they_are(copied: Callable[[str], Path]) -> None:
    root = copied("cityscapes")
    masks = sorted((root / "gtFine/val").rglob("*_labelIds.png"))
    ids = np.tile(np.asarray([0, 18, 255, 5], np.uint8), (40, 8))
    for mask in masks:
        path = mask.with_name(mask.name.replace("labelIds", "labelTrainIds"))
        PIL.Image.fromarray(ids).save(path)
    np.testing.assert_array_equal(open_dataset("cityscapes", root, "val")[0].mask, ids)


def test_cityscapes_labels_outside_the_benchmark_are_not_counted(
    copied: Callable[[str], Path],
) -> None:
    root = copied("cityscapes")
    mask = next((root / "gtFine/val").rglob("*_labelIds.png"))
    values = np.resize(np.arange(34, dtype=np.uint8), (40, 32))
    PIL.Image.fromarray(values).save(mask)
    ids = open_dataset("cityscapes", root, "val")[0].mask
    assert (ids != IGNORE).sum() == np.isin(values, LABEL_IDS).sum()
    for entry, label_id in zip(CITYSCAPES_CLASSES, LABEL_IDS, strict=True):
        assert (ids[values == label_id] == entry.id).all()


def test_ade20ks_zero_is_not_counted_and_150_is_the_last_class(
    copied: Callable[[str], Path],
) -> None:
    root = copied("ade20k")
    mask = next((root / "ADEChallengeData2016/annotations/validation").iterdir())
    PIL.Image.fromarray(np.tile(np.asarray([0, 1, 150, 2], np.uint8), (40, 8))).save(mask)
    row = open_dataset("ade20k", root, "val")[0].mask[0, :4]
    assert row.tolist() == [255, 0, 149, 1]


def test_palettes_are_the_published_ones(written: Path) -> None:
    voc = {entry.name: entry.rgb for entry in VOC_CLASSES}
    assert len(voc) == 21
    assert voc["background"] == (0, 0, 0)
    assert voc["aeroplane"] == (128, 0, 0)
    assert voc["cat"] == (64, 0, 0)
    assert voc["tvmonitor"] == (0, 64, 128)
    cityscapes = {entry.name: entry.rgb for entry in CITYSCAPES_CLASSES}
    assert len(cityscapes) == 19
    assert cityscapes["road"] == (128, 64, 128)
    assert cityscapes["bicycle"] == (119, 11, 32)
    ade = open_dataset("ade20k", written, "val").classes
    assert len({entry.name for entry in ade}) == len({entry.color for entry in ade}) == 150
    assert (ade[0].name, ade[149].name) == ("wall", "flag")


def test_ade20k_names_come_from_the_data_set_where_it_has_them(tmp_path: Path) -> None:
    path = tmp_path / "ADEChallengeData2016/objectInfo150.txt"
    lines = [f"{i}\t0.1576\t11664\t1172\tname {i}, synonym" for i in range(1, 151)]
    put_lists(tmp_path, {str(path): ["Idx\tRatio\tTrain\tVal\tName", *lines]})
    assert [entry.name for entry in ade20k_classes(tmp_path)][::149] == ["name 1", "name 150"]
    put_lists(tmp_path, {str(path): lines[:9]})
    with pytest.raises(ValueError, match=r"objectInfo150\.txt: expected lines 1 to 150.*got 9"):
        ade20k_classes(tmp_path)


def first_files(root: Path, name: str) -> tuple[Path, Path]:
    """Image and mask of a data set's first held-out sample."""
    found = open_dataset(name, root, "val")
    return found.pairs[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(set(LAYOUT.values())))
def test_damaged_files_are_named_with_a_cure(name: str, copied: Callable[[str], Path]) -> None:
    root = copied(name)
    image, mask = first_files(root, name)
    whole = mask.read_bytes()

    def refused(error: type[Exception], culprit: Path, complaint: str) -> None:
        with pytest.raises(error, match=f"{re.escape(str(culprit))}: {complaint}"):
            open_dataset(name, root, "val")[0]

    values = decoded(mask)
    PIL.Image.open(mask).convert("RGB").save(mask)
    refused(ValueError, mask, r"expected one 8-bit channel of class numbers.*'RGB'.*restore")
    PIL.Image.fromarray(np.where(values == values[0, 0], np.uint8(200), values)).save(mask)
    refused(ValueError, mask, r"expected values 0 to \d+.*, got \[200\]; is it a mask of another")
    PIL.Image.fromarray(values[1:]).save(mask)
    refused(ValueError, mask, r"expected 32 x 40 pixels as .*, got 32 x 39; restore")
    mask.write_bytes(b"no picture")
    refused(ValueError, mask, "not a readable image; restore it")
    mask.unlink()
    refused(FileNotFoundError, mask, "missing; unpack")
    mask.write_bytes(whole)
    image.write_bytes(image.read_bytes()[:200])
    refused(ValueError, image, "not a readable image; restore it")
    image.unlink()
    if name == "voc":
        refused(FileNotFoundError, image, "missing; unpack")


@pytest.mark.parametrize(
    "document", [{}, {"GTcls": 1.0}, {"GTcls": {"Segmentation": np.zeros((40, 32))}}]
)
def test_a_wrong_mat_file_is_named(
    document: dict[str, object], copied: Callable[[str], Path]
) -> None:
    root = copied("voc")
    path = next((root / "benchmark_RELEASE/dataset/cls").glob("2007*.mat"))
    index = trainaug(root).index(path.stem)
    scipy.io.savemat(path, document, do_compression=True)
    whole = path.read_bytes()
    for content in (whole, whole[:170], whole[:60], b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"\.mat: expected GTcls\.Segmentation, uint8"):
            open_dataset("voc-aug", root, "train")[index]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"\.mat: missing; unpack SBD"):
        open_dataset("voc-aug", root, "train")[index]


@pytest.mark.parametrize("name", sorted(DATASETS.keys() - {"fineshapes", "folder", "pages"}))
def test_a_folder_without_the_data_set_is_refused_at_once(name: str, tmp_path: Path) -> None:
    cure = r"unpack .* in the data folder|lies? in the data|copy the contests' pages there"
    with pytest.raises(FileNotFoundError, match=cure):
        open_dataset(name, tmp_path, "val")
    with pytest.raises(ValueError, match=f"{name}: expected the folder"):
        open_dataset(name, None, "val")
    with pytest.raises(ValueError, match=f"{name} split: expected train.* got 'holdout'"):
        open_dataset(name, tmp_path, "holdout")


def test_nothing_is_written_over_a_data_set(written: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="VOC2012: already there; name another folder"):
        write_fineshapes(written, "voc", PLAN)
    with pytest.raises(ValueError, match="layout: expected one of voc, cityscapes, ade20k; got"):
        write_fineshapes(tmp_path, "coco", PLAN)
    with pytest.raises(ValueError, match="count: expected at least 5"):
        Plan(count=4, height=48, width=48)


def test_the_command_writes_scenes_of_the_size_asked_for(tmp_path: Path) -> None:
    command = ["fineshapes", str(tmp_path), "--layout", "cityscapes", "--count", "5"]
    done = CliRunner().invoke(app, [*command, "--size", "40x56", "--seed", "3"])
    assert "wrote 5 scenes in the layout of cityscapes" in done.output
    found = open_dataset("cityscapes", tmp_path, "train")
    assert len(found) == 4
    np.testing.assert_array_equal(found[1].image, draw_scene(4, 40, 56).image)
    refused = CliRunner().invoke(app, [*command, "--size", "40"])
    assert refused.exit_code == 1
    assert "--size: expected height x width such as 128x160, got '40'" in refused.output


def test_only_names_are_read_until_a_sample_is_asked_for(copied: Callable[[str], Path]) -> None:
    root = copied("voc")
    for path in root.rglob("*.jpg"):
        path.write_bytes(b"")
    assert len(open_dataset("voc-aug", root, "train")) == 4


def test_a_data_set_travels_to_worker_processes(written: Path) -> None:
    found = open_dataset("ade20k", written, "val")
    copy = pickle.loads(pickle.dumps(found))  # noqa: S301 (made here)
    np.testing.assert_array_equal(copy[0].mask, found[0].mask)


def test_every_class_of_fineshapes_has_a_cityscapes_class_of_its_own() -> None:
    assert list(CITYSCAPES_IDS) == [entry.id for entry in FINE_SHAPES_CLASSES]
    assert len(set(CITYSCAPES_IDS.values())) == len(FINE_SHAPES_CLASSES)
    assert all(isinstance(entry, LabelClass) for entry in CITYSCAPES_CLASSES)
