"""Folders of photos to folders of masks."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppool.service.codecs.images import ImageLimits
from ppool.service.folder import Folder, segment_folder
from ppool.service.workers.inference import Segmenter
from tests.service.harness import encoded, photo
from tests.service.test_segment import outputs_of
from tests.service.traffic import ROOT

LIMITS = ImageLimits(max_pixels=1_000_000, max_side_pixels=5_000, max_frames=10)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    (photos / "a.png").write_bytes(encoded(photo(60, 40)))
    (photos / "a.JPG").write_bytes(encoded(photo(50, 30, seed=1), "JPEG"))
    (photos / "more" / "b.png").write_bytes(encoded(photo(40, 40, seed=2)))
    (photos / "notes.txt").write_text("no photo")
    return Folder(photos, tmp_path / "masks", workers=2)


def run(folder: Folder, segmenter: Segmenter) -> tuple[int, dict[str, str]]:
    """How many photos failed, and what was said of each that was done."""
    said: dict[str, str] = {}
    totals: list[int] = []
    failures = segment_folder(
        folder, segmenter, LIMITS, started=totals.append, done=said.__setitem__
    )
    assert totals == [len(said)]
    return failures, said


def rows(folder: Folder) -> list[dict[str, str]]:
    with (folder.masks / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_photo_gets_its_mask_and_its_row(folder: Folder, segmenter: Segmenter) -> None:
    assert run(folder, segmenter) == (0, dict.fromkeys(["a.JPG", "a.png", "more/b.png"], ""))
    mask = np.asarray(Image.open(folder.masks / "a.png.png"))
    np.testing.assert_array_equal(mask, outputs_of(segmenter, photo(60, 40))["mask"])
    assert [row["file"] for row in rows(folder)] == ["a.JPG", "a.png", "more/b.png"]
    row = rows(folder)[1]
    assert (row["width"], row["height"]) == ("60", "40")
    assert float(row["bright"]) == pytest.approx(np.mean(mask == 2), abs=1e-6)
    assert not list(folder.masks.rglob("*.partial"))


def test_a_second_run_does_only_what_is_missing(folder: Folder, segmenter: Segmenter) -> None:
    run(folder, segmenter)
    (folder.masks / "a.png.png").unlink()
    (folder.photos / "new.png").write_bytes(encoded(photo()))
    with (folder.masks / "summary.csv").open("a") as file:
        file.write("cut-off-by-a-cra")
    assert run(folder, segmenter) == (0, {"a.png": "", "new.png": ""})
    assert [row["file"] for row in rows(folder)] == ["a.JPG", "a.png", "more/b.png", "new.png"]


def test_a_broken_photo_is_told_and_does_not_stop_the_rest(
    folder: Folder, segmenter: Segmenter
) -> None:
    (folder.photos / "a.png").write_bytes(encoded(photo())[:90])
    failures, said = run(folder, segmenter)
    assert failures == 1
    assert "cut off or broken" in said.pop("a.png")
    assert said == {"a.JPG": "", "more/b.png": ""}
    assert [row["file"] for row in rows(folder)] == ["a.JPG", "more/b.png"]


def test_masks_among_the_photos_are_not_photos(tmp_path: Path, segmenter: Segmenter) -> None:
    (tmp_path / "a.png").write_bytes(encoded(photo()))
    folder = Folder(tmp_path, tmp_path / "masks")
    assert run(folder, segmenter) == (0, {"a.png": ""})
    assert run(folder, segmenter) == (0, {})


def test_masks_may_go_to_a_folder_that_holds_that_of_the_photos(
    folder: Folder, segmenter: Segmenter
) -> None:
    above = replace(folder, masks=folder.photos.parent)
    assert run(above, segmenter) == (0, dict.fromkeys(["a.JPG", "a.png", "more/b.png"], ""))
    assert run(above, segmenter) == (0, {})


def test_masks_may_not_go_among_the_photos(folder: Folder, segmenter: Segmenter) -> None:
    with pytest.raises(ValueError, match="has the photos; choose another folder"):
        run(replace(folder, masks=folder.photos), segmenter)


def test_masks_of_another_model_are_left_alone(folder: Folder, segmenter: Segmenter) -> None:
    folder.masks.mkdir()
    (folder.masks / "summary.csv").write_text("file,width,height,cat\n")
    with pytest.raises(ValueError, match="another model"):
        run(folder, segmenter)


def test_without_photos_or_a_place_for_masks_it_says_so(
    tmp_path: Path, folder: Folder, segmenter: Segmenter
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: expected photos \(.*\.jpg.*\), found none"):
        run(Folder(tmp_path / "empty", tmp_path / "masks"), segmenter)
    with pytest.raises(ValueError, match=r"notes\.txt: cannot be a folder for masks"):
        run(Folder(folder.photos, folder.photos / "notes.txt"), segmenter)


def test_the_command_tells_by_its_status_whether_any_failed(
    folder: Folder, model_file: Path
) -> None:
    command = [sys.executable, "-m", "ppool.service", "segment", str(folder.photos)]
    command += ["-o", str(folder.masks), "--model", str(model_file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, len(rows(folder))) == (0, 3), done.stderr
    (folder.photos / "bad.jpg").write_bytes(b"\xff\xd8\xff no")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "bad.jpg: The JPEG file is cut off or broken" in done.stderr
