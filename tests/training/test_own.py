"""Own photos: from a folder to a scored checkpoint, and every way in which masks are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from ppool._cli import MisuseError
from ppool.models import Checkpoint, create_model
from ppool.training.cli import _recipe, app
from ppool.training.datasets import DATASETS, open_dataset
from ppool.training.own import prepare
from ppool.training.start import weights_file

CLASSES = "sky\nwire #ff8000\n\nroof\n"


def photo(root: Path, name: str, values: NDArray[np.uint8], mask: Any = None) -> None:
    for folder in ("images", "masks"):
        (root / folder).mkdir(exist_ok=True)
    PIL.Image.fromarray(values).save(root / "images" / name)
    if mask is not None:
        PIL.Image.fromarray(mask).save(root / "masks" / f"{Path(name).stem}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five photos of several types with masks of three classes."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "classes.txt").write_text(CLASSES, "utf-8-sig")
    rng = np.random.default_rng(0)
    for index, suffix in enumerate(("png", "jpg", "webp", "tif", "bmp")):
        mask = rng.integers(0, 3, (40, 48), np.uint8)
        mask[0] = 255
        photo(folder, f"photo{index}.{suffix}", rng.integers(0, 256, (40, 48, 3), np.uint8), mask)
    return folder


def test_a_folder_becomes_a_network_in_three_commands(root: Path, tmp_path: Path) -> None:
    def command(*words: str) -> str:
        result = CliRunner().invoke(app, list(words), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    said = command("init", str(root))
    assert "4 images to train on, 1 held out" in said
    assert "│ wire  │ 1      │" in said
    short = ("--iterations", "1", "--batch-size", "2", "--crop", "32")
    command("run", "--data", str(root), "-o", str(tmp_path / "run"), *short)
    said = command("evaluation", str(tmp_path / "run" / "checkpoint.pt"), "--data", str(root))
    assert "│ roof " in said
    checkpoint = Checkpoint.load(tmp_path / "run" / "checkpoint.pt")
    assert [(entry.name, entry.color) for entry in checkpoint.classes] == [
        ("sky", "#000000"), ("wire", "#ff8000"), ("roof", "#008000"),
    ]  # fmt: skip
    # Other classes may start from it: all but the head is taken over.
    other = create_model("unet_small", num_classes=5, weights=tmp_path / "run" / "checkpoint.pt")
    trained = checkpoint.state_dict["stem.0.weight"]
    assert (other.get_parameter("stem.0.weight") == trained).all()


def test_the_shipped_model_is_where_own_classes_may_start(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(root)
    words = ["run", "--data", str(root), "-o", str(tmp_path / "run"), "--weights", "shipped",
             "--iterations", "1", "--batch-size", "2", "--crop", "64"]  # fmt: skip
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "with pages.onnx: network unet_pages, mean (0.6, 0.6, 0.6), std (0.25," in said
    checkpoint = Checkpoint.load(tmp_path / "run" / "checkpoint.pt")
    assert checkpoint.network == "unet_pages"
    assert checkpoint.input.multiple == 32
    assert checkpoint.mean == (0.6, 0.6, 0.6)
    assert [entry.name for entry in checkpoint.classes] == ["sky", "wire", "roof"]
    # One small step away from where it began, statistics of own photos included.
    shipped = create_model("unet_pages", num_classes=3, weights=weights_file("shipped"))
    stem = shipped.get_parameter("stem.0.weight")
    assert (checkpoint.state_dict["stem.0.weight"] - stem).abs().max() < 0.1 * stem.abs().max()
    assert (checkpoint.state_dict["stem.1.running_var"] > 0).all()
    assert not torch.allclose(checkpoint.state_dict["stem.1.running_var"], torch.ones(16))


def test_a_run_without_recipe_says_what_it_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(DATASETS, "pages", raising=False)  # research adds it
    with pytest.raises(MisuseError, match=r"--recipe: expected one, or --data with own photos"):
        _recipe(None, None, ())
    with pytest.raises(MisuseError, match=r"photos that `ppool train init .*` looked at"):
        _recipe(None, tmp_path, ())
    (tmp_path / "dataset.json").write_text("{}")
    assert _recipe(None, tmp_path, ()).dataset == "folder"


def test_every_image_is_in_one_split_and_stays_there(root: Path) -> None:
    first, again = prepare(root), prepare(root)
    assert first.splits == again.splits
    names = sorted([*first.splits["train"], *first.splits["val"]])
    assert names == sorted(path.name for path in (root / "images").iterdir())
    sample = open_dataset("folder", root, "val")[0]
    assert sample.image.shape == (40, 48, 3)
    assert sum(first.shares.values()) == pytest.approx(1)


def faults(root: Path) -> str:
    with pytest.raises((ValueError, OSError)) as refused:
        prepare(root)
    assert not (root / "dataset.json").exists()
    return str(refused.value)


def test_wrong_masks_are_explained_all_at_once(root: Path) -> None:
    mask = np.zeros((40, 48), np.uint8)
    colours = np.zeros((40, 48, 3), np.uint8)
    colours[:9] = (255, 0, 0)
    PIL.Image.fromarray(colours).save(root / "masks" / "photo0.png")
    PIL.Image.fromarray(np.where(mask + np.eye(40, 48, dtype=np.uint8), 254, 0).astype(np.uint8)
                        ).save(root / "masks" / "photo1.png")  # fmt: skip
    PIL.Image.fromarray(mask.T.copy()).save(root / "masks" / "photo2.png")
    (root / "masks" / "photo3.png").unlink()
    (root / "masks" / "photo4.png").write_bytes(b"no picture")
    said = faults(root)
    assert (
        "photo0.png: expected one channel of class numbers, got colours (#000000, #ff0000)" in said
    )
    assert (
        "photo1.png: expected class numbers 0 to 2 and 255 for none, got [254]; 0 and 255" in said
    )
    assert "photo2.png: expected 48 x 40 pixels as photo2.webp has upright, got 40 x 48" in said
    assert "photo3.png: missing, the mask of photo3.tif" in said
    assert "photo4.png: not a readable image" in said


def test_a_photo_that_exif_turns_needs_a_mask_that_is_turned(root: Path) -> None:
    tags = PIL.Image.Exif()
    tags[0x0112] = 6
    lying = PIL.Image.fromarray(np.zeros((40, 48, 3), np.uint8))
    lying.save(root / "images" / "photo1.jpg", exif=tags)
    assert (
        "expected 40 x 48 pixels as photo1.jpg has upright, got 48 x 40; the photo's EXIF"
        in faults(root)
    )
    PIL.Image.fromarray(np.zeros((48, 40), np.uint8)).save(root / "masks" / "photo1.png")
    prepare(root)


def no_names(root: Path) -> None:
    (root / "classes.txt").unlink()


def one_name(root: Path) -> None:
    (root / "classes.txt").write_text("one")


def twins(root: Path) -> None:
    (root / "images" / "photo0.jpg").write_bytes((root / "images" / "photo1.jpg").read_bytes())


def no_images(root: Path) -> None:
    for path in (root / "images").iterdir():
        path.unlink()


def one_image(root: Path) -> None:
    for path in sorted((root / "images").iterdir())[1:]:
        path.unlink()


def labels(*values: int) -> Any:
    def write(root: Path) -> None:
        mask = np.resize(np.array(values, np.uint8), (40, 48))
        for path in (root / "masks").iterdir():
            PIL.Image.fromarray(mask).save(path)

    return write


def as_jpeg(root: Path) -> None:
    path = root / "masks" / "photo0.png"
    PIL.Image.open(path).save(path.with_suffix(".jpg"))
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (no_names, "classes.txt: missing; write the class names"),
        (one_name, "expected 2 to 254 names, one a line"),
        (twins, "one image of each name, got ['photo0']"),
        (no_images, "expected images, found"),
        (one_image, "expected at least 2 images"),
        (labels(255), "expected some labels, got only 255"),
        (labels(0, 255), "got 0 ('sky') alone; 255 says that a pixel has no label: for 'wire'"),
        (labels(1), "expected two classes or more, got 1 ('wire') alone"),
        (labels(*range(40)), "so many: was it a JPEG once, or resized with smoothing?"),
        (as_jpeg, "mask of photo0.png; photo0.jpg is there: save it as PNG, which keeps numbers"),
    ],
)
def test_what_is_missing_is_named(root: Path, damage: Any, complaint: str) -> None:
    damage(root)
    assert complaint in faults(root)


def test_a_folder_that_was_not_looked_at_says_what_to_do(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`ppool train init .*` writes it"):
        open_dataset("folder", root, "train")
    (root / "dataset.json").write_text("{}")
    with pytest.raises(ValueError, match="not a description of a data set"):
        open_dataset("folder", root, "train")
    prepare(root)
    with pytest.raises(ValueError, match="folder split: expected train, val, got 'test'"):
        open_dataset("folder", root, "test")


def test_the_shares_are_of_labelled_pixels(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb")
    for index in range(2):
        mask = np.full((4, 4), 255, np.uint8)
        mask[0], mask[1, :1] = 0, 1
        photo(tmp_path, f"{index}.png", np.zeros((4, 4, 3), np.uint8), mask)
    assert prepare(tmp_path).shares == {"a": 0.8, "b": 0.2}
