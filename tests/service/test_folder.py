"""Folders of photos to folders of masks."""

import csv
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from rich.console import Console

from ppool.service.codecs.header import ImageLimits
from ppool.service.folder import ENDS, SUFFIXES, Counts, Found, Job, Run, Summary, find_photos
from ppool.service.folder.report import Report
from ppool.service.workers.inference import Segmenter
from tests.service.harness import Client, Gate, encoded, photo
from tests.service.pdfs import pdf_file
from tests.service.test_encodings import decode_rle
from tests.service.test_segment import outputs_of
from tests.service.traffic import PATIENCE_SECONDS, until

needs_pdf = pytest.mark.skipif(
    importlib.util.find_spec("pypdfium2") is None, reason="needs: pip install 'ppool[pdf]'"
)
LIMITS = ImageLimits(max_pixels=1_000_000, max_side_pixels=5_000, max_frames=10)
PPOOL = (sys.executable, "-P", "-m", "ppool")


@dataclass
class Seen:
    """What a run told of."""

    said: dict[str, str] = field(default_factory=dict)
    total: int = 0

    def more(self, count: int) -> None:
        self.total += count

    def done(self, name: str, problem: str) -> None:
        self.said[name] = problem


@dataclass(frozen=True)
class Folder:
    """A folder of three photos and something else, and the folder for their masks."""

    photos: Path
    masks: Path
    segmenter: Segmenter
    job: Job = field(default_factory=lambda: Job(workers=2))

    def prepare(self, *given: Path, force: bool = False) -> Run:
        found = find_photos(given or [self.photos], self.masks)
        model = self.segmenter.model
        classes = [label.name for label in model.classes]
        summary = Summary(self.masks, classes, model.sha256, self.job.options, force=force)
        return Run(self.job, found, summary, self.segmenter, LIMITS)

    def run(self, *given: Path, force: bool = False) -> tuple[str, dict[str, str]]:
        """The last line, and what was said of each photo that was done."""
        run = self.prepare(*given, force=force)
        watch = Seen()
        assert run.work(watch)
        assert len(watch.said) == watch.total
        assert not list(self.masks.rglob("*.partial"))
        return str(run.counts), watch.said

    def rows(self) -> list[dict[str, str]]:
        with (self.masks / "summary.csv").open(
            newline="", encoding="utf-8", errors="surrogateescape"
        ) as file:
            return list(csv.DictReader(file))

    def names(self) -> list[str]:
        return [row["file"] for row in self.rows()]


@pytest.fixture
def folder(tmp_path: Path, segmenter: Segmenter) -> Folder:
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    (photos / "a.png").write_bytes(encoded(photo(60, 40)))
    (photos / "a.JPG").write_bytes(encoded(photo(50, 30, seed=1), "JPEG"))
    (photos / "more" / "b.png").write_bytes(encoded(photo(40, 40, seed=2)))
    (photos / "notes.txt").write_text("no photo")
    return Folder(photos, tmp_path / "masks", segmenter)


def test_every_photo_gets_its_mask_and_its_row(folder: Folder, segmenter: Segmenter) -> None:
    expected = dict.fromkeys(["a.JPG", "a.png", "more/b.png"], "")
    assert folder.run() == ("3 written, 0 kept, 0 failed, 1 skipped", expected)
    mask = np.asarray(Image.open(folder.masks / "a.png.png"))
    np.testing.assert_array_equal(mask, outputs_of(segmenter, photo(60, 40))["mask"])
    assert folder.names() == ["a.JPG", "a.png", "more/b.png"]
    row = folder.rows()[1]
    assert (row["width"], row["height"]) == ("60", "40")
    assert float(row["bright"]) == pytest.approx(np.mean(mask == 2), abs=1e-6)
    assert row["model_sha256"] == segmenter.model.sha256
    assert folder.run() == ("0 written, 3 kept, 0 failed, 1 skipped", {})


def emptied(folder: Folder) -> None:
    (folder.masks / "a.png.png").write_bytes(b"")


def cut(folder: Folder) -> None:
    mask = folder.masks / "a.png.png"
    mask.write_bytes(mask.read_bytes()[:-9])


def gone(folder: Folder) -> None:
    (folder.masks / "a.png.png").unlink()


def touched(folder: Folder) -> None:
    os.utime(folder.photos / "a.png", ns=(1, 1))


def another(folder: Folder) -> None:
    path = folder.photos / "a.png"
    about = path.stat()
    path.write_bytes(encoded(photo(20, 20)))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def without_its_row(folder: Folder) -> None:
    summary = folder.masks / "summary.csv"
    rows = summary.read_bytes().split(b"\r\n")
    summary.write_bytes(b"\r\n".join([*rows[:2], *rows[3:]]))


def with_a_row_cut_off(folder: Folder) -> None:
    summary = folder.masks / "summary.csv"
    rows = summary.read_bytes().splitlines(keepends=True)
    # All its cells are there, and still it may not be what was meant.
    summary.write_bytes(b"".join([*rows[:2], *rows[3:], rows[2].removesuffix(b"\r\n")]))


@pytest.mark.parametrize(
    "accident", [emptied, cut, gone, touched, another, without_its_row, with_a_row_cut_off]
)
def test_what_is_finished_is_whole_and_of_this_photo(
    folder: Folder, accident: Callable[[Folder], None]
) -> None:
    folder.run()
    accident(folder)
    assert folder.run() == ("1 written, 2 kept, 0 failed, 1 skipped", {"a.png": ""})
    assert folder.names() == ["a.JPG", "a.png", "more/b.png"]
    with Image.open(folder.masks / "a.png.png") as mask, Image.open(folder.photos / "a.png") as of:
        assert mask.size == of.size


def test_masks_of_another_model_or_other_options_are_not_mixed(folder: Folder) -> None:
    folder.run()
    model = replace(folder.segmenter.model, sha256="0" * 64)
    for other in (
        replace(folder, job=Job(("overlay",))),
        replace(folder, segmenter=replace(folder.segmenter, model=model)),
    ):
        with pytest.raises(ValueError, match=r"of another model, or .* again with --force"):
            other.run()
        assert other.run(force=True)[0] == "3 written, 0 kept, 0 failed, 1 skipped"
        assert other.run()[0] == "0 written, 3 kept, 0 failed, 1 skipped"
        folder.run(force=True)


@pytest.mark.parametrize("first", ["file,width,height,cat", "my,own,file", '"'])
def test_a_summary_of_another_form_is_left_alone(folder: Folder, first: str) -> None:
    folder.masks.mkdir()
    (folder.masks / "summary.csv").write_text(f"{first}\n")
    with pytest.raises(ValueError, match="another model"):
        folder.run()
    assert (folder.masks / "summary.csv").read_text() == f"{first}\n"


def test_a_broken_photo_is_told_and_takes_its_old_mask_along(folder: Folder) -> None:
    folder.run()
    (folder.photos / "a.png").write_bytes(encoded(photo())[:90])
    line, said = folder.run()
    assert line == "0 written, 2 kept, 1 failed, 1 skipped"
    assert "cut off" in said["a.png"]
    assert folder.names() == ["a.JPG", "more/b.png"]
    assert not (folder.masks / "a.png.png").exists()


def test_masks_may_be_in_or_above_but_not_among_the_photos(folder: Folder) -> None:
    inside = replace(folder, masks=folder.photos / "masks")
    above = replace(folder, masks=folder.photos.parent)
    for place in (inside, above):
        assert place.run()[0] == "3 written, 0 kept, 0 failed, 1 skipped"
        assert place.run()[0] == "0 written, 3 kept, 0 failed, 1 skipped"
        shutil.rmtree(inside.masks, ignore_errors=True)
    for given in (folder.photos, folder.photos / "a.png"):
        with pytest.raises(ValueError, match="has the photos; choose another folder"):
            replace(folder, masks=folder.photos).run(given)


def test_what_the_model_cannot_do_is_said_before_anything_is_begun(segmenter: Segmenter) -> None:
    for job, reason in (
        (Job(("mask", "probability")), "Leave probability"),
        (Job(tile=True), "cannot segment in windows; leave out --tile"),
        (Job(classes="sky"), "sky"),
        (Job(("cutout",)), "say with --cutout which classes"),
    ):
        with pytest.raises(ValueError, match=reason):
            job.answer(segmenter.model)


def test_without_photos_or_a_place_for_masks_it_says_so(folder: Folder) -> None:
    with pytest.raises(ValueError, match=r"nowhere: there is no such file or folder"):
        folder.run(folder.photos / "nowhere")
    with pytest.raises(ValueError, match=r"notes\.txt: cannot be a folder for masks"):
        replace(folder, masks=folder.photos / "notes.txt").run()


def test_two_at_a_time_are_one_too_many(folder: Folder) -> None:
    first = folder.prepare()
    with pytest.raises(ValueError, match="another ppool segment is writing there"):
        folder.prepare()
    assert first.work(Seen())
    folder.run()


def test_files_and_patterns_are_taken_too(folder: Folder) -> None:
    assert folder.run(folder.photos / "a*")[1] == {"a.JPG": "", "a.png": ""}
    assert folder.run(folder.photos / "a.png", folder.photos / "more")[1] == {"more/b.png": ""}
    assert folder.run(folder.photos / "**" / "*.png")[0] == "0 written, 2 kept, 0 failed, 0 skipped"
    assert folder.names() == ["a.JPG", "a.png", "more/b.png"]


def test_whatever_is_not_done_is_listed(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.photos / "scan.ps").write_bytes(b"%!PS")
    (folder.photos / "photo.XCF").write_bytes(b"ftypheic")
    (folder.photos / "dangling.png").symlink_to("nowhere")
    (folder.photos / "linked").symlink_to("more")
    (folder.photos / "locked").mkdir()
    os.mkfifo(folder.photos / "pipe.jpg")
    scan = os.scandir

    def forbidding(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", forbidding)
    found = find_photos([folder.photos], folder.masks)
    assert set(found.skipped) == {"notes.txt", "scan.ps", "photo.XCF", "linked", "pipe.jpg"}
    assert found.failed == {
        "dangling.png": "No such file or directory",
        str(folder.photos / "locked"): "Permission denied",
    }
    assert folder.run()[0] == "3 written, 0 kept, 2 failed, 5 skipped"


def test_names_that_are_no_text_or_too_long_harm_nobody_else(folder: Folder) -> None:
    odd = [os.fsdecode(b"\xff\xfe.png"), 'a "b",\nc.png', "é\u2028.png"]
    for name in odd:
        (folder.photos / name).write_bytes(encoded(photo()))
    long = f"{248 * 'x'}.png"
    (folder.photos / long).write_bytes(encoded(photo()))
    line, said = folder.run()
    assert line == "6 written, 0 kept, 1 failed, 1 skipped"
    assert said[long] == "File name too long"
    assert set(odd) <= set(folder.names())
    assert folder.run()[0] == "0 written, 6 kept, 1 failed, 1 skipped"


def test_pages_of_one_shape_share_a_batch_and_their_files_are_the_same(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        sides = (60, 40) if number % 2 else (30, 100)
        (folder.photos / f"{number}.png").write_bytes(encoded(photo(*sides, seed=number)))
    (folder.photos / "cut.png").write_bytes(encoded(photo(60, 40))[:-60])
    (folder.photos / "none.png").write_bytes(b"none")
    scan = np.stack([photo(60, 40, seed=9)] * 5)
    tifffile.imwrite(folder.photos / "scan.tif", scan, photometric="rgb")
    kinds = ("mask", "json")
    replace(folder, job=Job(kinds)).run()
    batches: list[list[str]] = []
    segment = Segmenter.segment

    def noted(self: Segmenter, tasks: Any, *others: Any) -> Any:
        batches.append([task.name for task in tasks])
        return segment(self, tasks, *others)

    monkeypatch.setattr(Segmenter, "segment", noted)
    together = replace(folder, masks=folder.masks.parent / "together", job=Job(kinds, batch=3))
    assert together.run()[0] == "18 written, 0 kept, 2 failed, 1 skipped"
    assert sorted(map(len, batches))[-4:] == [3, 3, 3, 3]
    assert all(len({(int(name[0]) % 2) for name in b if name[0].isdigit()}) < 2 for b in batches)

    def files(masks: Path) -> dict[Path, bytes]:
        found = masks.rglob("*.*")
        return {path.relative_to(masks): path.read_bytes() for path in found if path.is_file()}

    assert files(together.masks) == files(folder.masks)


def test_stopped_it_keeps_what_is_finished_and_waits_for_nothing(
    folder: Folder, gated: Segmenter, gate: Gate
) -> None:
    slow = replace(folder, segmenter=gated, job=Job(workers=1))
    (folder.photos / "0.jpg").write_bytes(b"\xff\xd8\xff no")  # done without the model
    gate.close()
    run = slow.prepare()

    class Stopping(Seen):
        def done(self, name: str, problem: str) -> None:
            super().done(name, problem)
            run.stop()

    watch = Stopping()
    assert not run.work(watch)
    assert list(watch.said) == ["0.jpg"]
    gate.open.set()
    assert folder.run()[0] == "3 written, 0 kept, 1 failed, 1 skipped"


def test_a_full_disk_ends_it_and_what_is_finished_stays(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) >= 3:  # the summary, one mask, and no more
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    run = replace(folder, job=Job(workers=1)).prepare()
    with pytest.raises(OSError, match="No space left on device"):
        run.work(Seen())
    assert run.counts == Counts(written=1, skipped=1)
    assert not list(folder.masks.rglob("*.partial"))
    monkeypatch.undo()
    assert folder.run()[0] == "2 written, 1 kept, 0 failed, 1 skipped"


def test_several_answers_lie_side_by_side_and_are_whole_together(
    folder: Folder, segmenter: Segmenter
) -> None:
    kinds = ("mask", "overlay", "json")
    every = replace(folder, job=Job(kinds, workers=2))
    assert every.run()[0] == "3 written, 0 kept, 0 failed, 1 skipped"
    names = {path.name for path in folder.masks.glob("a.png.*")}
    assert names == {"a.png.png", "a.png.overlay.png", "a.png.json"}
    expected = outputs_of(segmenter, photo(60, 40))["mask"]
    np.testing.assert_array_equal(np.asarray(Image.open(folder.masks / "a.png.png")), expected)
    overlay = replace(folder, masks=folder.masks.parent / "alone", job=Job(("overlay",)))
    overlay.run()
    alone = (overlay.masks / "a.png.overlay.png").read_bytes()
    assert (folder.masks / "a.png.overlay.png").read_bytes() == alone
    document = json.loads((folder.masks / "more" / "b.png.json").read_bytes())
    assert (document["name"], document["width"]) == ("more/b.png", 40)
    counts = sum(area["pixels"] for area in document["classes"])
    assert counts == 1600
    mask = np.asarray(Image.open(folder.masks / "more" / "b.png.png"))
    for label, text in document["mask"]["counts"].items():
        np.testing.assert_array_equal(decode_rle(text, *mask.shape), mask == int(label))
    (folder.masks / "a.png.overlay.png").unlink()
    assert every.run() == ("1 written, 2 kept, 0 failed, 1 skipped", {"a.png": ""})
    # Fewer answers: what nobody keeps up to date any more goes.
    assert folder.run(force=True)[0] == "3 written, 0 kept, 0 failed, 1 skipped"
    assert {path.name for path in folder.masks.iterdir()} == {
        *("a.png.png", "a.JPG.png", "more", "summary.csv")
    }


def test_coco_has_a_document_for_each_page_and_one_of_all(folder: Folder) -> None:
    both = replace(folder, job=Job(("mask", "coco"), workers=2))
    tifffile.imwrite(folder.photos / "scan.tif", np.stack([photo(30, 20)] * 2), photometric="rgb")
    whole = folder.masks / "coco.json"
    assert both.run()[0] == "5 written, 0 kept, 0 failed, 1 skipped"
    found = json.loads(whole.read_bytes())
    images = {image["id"]: image for image in found["images"]}
    assert list(images) == [1, 2, 3, 4, 5]
    places = [(image["file_name"], image.get("page")) for image in images.values()]
    assert places == [
        *[("a.JPG", None), ("a.png", None), ("more/b.png", None), ("scan.tif", 1), ("scan.tif", 2)]
    ]
    names = [label.name for label in folder.segmenter.model.classes]
    assert [(entry["id"], entry["name"]) for entry in found["categories"]] == [*enumerate(names)]
    numbers = [entry["id"] for entry in found["annotations"]]
    assert numbers == [*range(1, len(numbers) + 1)]
    areas: Counter[tuple[str, str]] = Counter()
    for entry in found["annotations"]:
        name = images[entry["image_id"]]["file_name"]
        areas[name, names[entry["category_id"]]] += entry["area"]
    for row in both.rows()[:3]:
        pixels = int(row["width"]) * int(row["height"])
        for name in names:
            assert areas[row["file"], name] == pytest.approx(float(row[name]) * pixels, abs=0.01)
    # One photo fails now: the data set of all follows.
    (folder.photos / "a.png").write_bytes(b"none")
    assert both.run()[0] == "0 written, 4 kept, 1 failed, 1 skipped"
    assert len(json.loads(whole.read_bytes())["images"]) == 4
    (folder.masks / "a.JPG.coco.json").write_bytes(b"")
    assert both.run()[0] == "1 written, 3 kept, 1 failed, 1 skipped"


def test_every_answer_is_that_of_the_service(folder: Folder, client: Client) -> None:
    some = {"cutout": "bright", "classes": "dark,bright"}
    job = Job(tuple(kind for kind in ENDS if kind != "probability"), workers=2, **some)
    assert replace(folder, job=job).run()[0] == "3 written, 0 kept, 0 failed, 1 skipped"
    body = (folder.photos / "a.png").read_bytes()
    for kind, end, media in (
        ("mask", ".png", "image/png"),
        ("overlay", ".overlay.png", "image/png"),
        ("cutout", ".cutout.png", "image/png"),
        ("polygons", ".geojson", "application/geo+json"),
        ("coco", ".coco.json", "application/json"),
    ):
        query = f"?answers={kind}&classes={some['classes']}"
        query += f"&cutout={some['cutout']}" if kind == "cutout" else ""
        answer = client.segment(body, query, accept=media)
        assert answer.status_code == 200, answer.text
        written = (folder.masks / f"a.png{end}").read_bytes()
        if kind == "coco":
            answer_name = json.loads(answer.content)["images"][0]["file_name"]
            written = written.replace(b'"a.png"', f'"{answer_name}"'.encode())
        assert written == answer.content, kind
    answer = client.segment(body, "?answers=components&classes=dark,bright",
                            accept="application/json").json()  # fmt: skip
    written = (folder.masks / "a.png.components.json").read_bytes()
    assert json.loads(written) == answer["images"][0]["components"]
    with pytest.raises(ValueError, match="made with other options"):
        replace(folder, job=replace(job, classes=None)).run()


def test_every_page_of_a_tiff_is_a_row_but_no_smaller_copy(
    folder: Folder, segmenter: Segmenter
) -> None:
    pages = [photo(30 + 5 * number, 20, seed=number) for number in range(3)]
    path = folder.photos / "scan.TIF"
    with tifffile.TiffWriter(path) as file:
        for pixels in pages:
            file.write(pixels, photometric="rgb")
            file.write(pixels[::2, ::2], photometric="rgb", subfiletype=1)
    names = [f"scan.TIF.page-{number:04d}" for number in (1, 3, 5)]
    line, said = folder.run()
    assert line == "6 written, 0 kept, 0 failed, 1 skipped"
    assert set(names) < set(said)
    for name, pixels in zip(names, pages, strict=True):
        mask = np.asarray(Image.open(folder.masks / f"{name}.png"))
        np.testing.assert_array_equal(mask, outputs_of(segmenter, pixels)["mask"])
    rows = [row for row in folder.rows() if row["file"] == "scan.TIF"]
    assert [(row["page"], row["pages"]) for row in rows] == [("1", "3"), ("3", "3"), ("5", "3")]
    # One page is missing; then the file has one page only, and the files of the others go.
    (folder.masks / f"{names[1]}.png").unlink()
    assert folder.run() == ("1 written, 5 kept, 0 failed, 1 skipped", {names[1]: ""})
    tifffile.imwrite(path, pages[0], photometric="rgb")
    assert folder.run() == ("1 written, 3 kept, 0 failed, 1 skipped", {"scan.TIF": ""})
    assert {path.name for path in folder.masks.glob("scan*")} == {"scan.TIF.png"}


def test_a_broken_page_fails_alone(folder: Folder) -> None:
    pages = [photo(30, 20, seed=number) for number in range(3)]
    tifffile.imwrite(folder.photos / "scan.tif", np.stack(pages), photometric="rgb",
                     compression="zlib")  # fmt: skip
    content = bytearray((folder.photos / "scan.tif").read_bytes())
    with tifffile.TiffFile(folder.photos / "scan.tif") as file:
        place = file.pages[1].dataoffsets[0]
    content[place : place + 40] = bytes(40)
    (folder.photos / "scan.tif").write_bytes(content)
    line, said = folder.run()
    assert line == "5 written, 0 kept, 1 failed, 1 skipped"
    assert [name for name, problem in said.items() if problem] == ["scan.tif.page-0002"]
    assert folder.run()[0] == "0 written, 5 kept, 1 failed, 1 skipped"


@needs_pdf
def test_pages_of_a_pdf_are_drawn_as_they_are(folder: Folder, segmenter: Segmenter) -> None:
    pages = [photo(64, 48), photo(50, 40, seed=1)]
    (folder.photos / "scan.PDF").write_bytes(pdf_file(pages))
    (folder.photos / "letter.pdf").write_bytes(pdf_file(pages[:1]))
    drawn = replace(folder, job=Job(dpi=72, workers=2))
    assert drawn.run()[0] == "6 written, 0 kept, 0 failed, 1 skipped"
    names = {"scan.PDF.page-0001": 0, "scan.PDF.page-0002": 1, "letter.pdf": 0}
    for name, number in names.items():
        mask = np.asarray(Image.open(folder.masks / f"{name}.png"))
        np.testing.assert_array_equal(mask, outputs_of(segmenter, pages[number])["mask"])
    assert drawn.run()[0] == "0 written, 6 kept, 0 failed, 1 skipped"
    with pytest.raises(ValueError, match="made with other options"):
        folder.run()
    assert folder.run(force=True)[0] == "6 written, 0 kept, 0 failed, 1 skipped"
    with Image.open(folder.masks / "letter.pdf.png") as mask:
        assert mask.size == (178, 134)  # at 200 dpi


@needs_pdf
def test_a_pdf_that_cannot_be_read_is_a_failure_of_its_own(folder: Folder) -> None:
    sound = pdf_file([photo(64, 48)])
    for name, content in {
        "broken.pdf": sound[: len(sound) // 3],
        "empty.pdf": b"",
        "poster.pdf": pdf_file([photo(64, 48)], points=(3600, 1800)),
        "secret.pdf": pdf_file([photo(64, 48)], encrypted=True),
        "sound.pdf": sound,
    }.items():
        (folder.photos / name).write_bytes(content)
    line, said = folder.run()
    assert line == "4 written, 0 kept, 4 failed, 1 skipped"
    assert said["broken.pdf"] == said["empty.pdf"]
    assert said["broken.pdf"].startswith("The PDF is damaged; ")
    assert said["secret.pdf"] == "The PDF has a password; save it without one."
    assert said["poster.pdf"].startswith("The page has 10000 x 5000 pixels at 200 dpi; ask for ")
    (dpi,) = re.findall(r"--dpi (\d+)", said["poster.pdf"])
    (folder.photos / "a.png").unlink()
    smaller = replace(folder, job=Job(dpi=int(dpi)), masks=folder.masks.parent / "smaller")
    assert smaller.run(folder.photos / "poster.pdf")[0] == "1 written, 0 kept, 0 failed, 0 skipped"


def test_without_the_extra_a_pdf_says_which_it_needs(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    (folder.photos / "scan.pdf").write_bytes(pdf_file([photo()]))
    line, said = folder.run()
    assert line == "3 written, 0 kept, 1 failed, 1 skipped"
    assert "pip install 'ppool[pdf]'" in said["scan.pdf"]


@pytest.mark.parametrize("suffix", sorted(SUFFIXES - {".pdf"}))
def test_every_kind_of_photo_is_found_whatever_the_case(folder: Folder, suffix: str) -> None:
    kinds = {".avif": "AVIF", ".heic": "HEIF", ".heif": "HEIF", ".gif": "GIF", ".webp": "WEBP"}
    kinds |= {".bmp": "BMP", ".png": "PNG", ".apng": "PNG", ".tif": "TIFF", ".tiff": "TIFF"}
    name = f"one{suffix.upper()}"
    if suffix in (".heic", ".heif"):
        pytest.importorskip("pillow_heif").register_heif_opener()
    (folder.photos / name).write_bytes(encoded(photo(64, 64), kinds.get(suffix, "JPEG")))
    assert folder.run(folder.photos / name) == (
        "1 written, 0 kept, 0 failed, 0 skipped",
        {name: ""},
    )


def segment(folder: Folder, model_file: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = ["segment", str(folder.photos), "-o", str(folder.masks), "--model", str(model_file)]
    return subprocess.run([*PPOOL, *words, *more], capture_output=True, text=True, check=False)


def test_the_command_counts_and_tells_by_its_status_whether_any_failed(
    folder: Folder, model_file: Path
) -> None:
    (folder.photos / "bad.jpg").write_bytes(b"\xff\xd8\xff no")
    done = segment(folder, model_file)
    assert done.returncode == 1
    assert done.stdout == "3 written, 0 kept, 1 failed, 1 skipped\n"
    assert "failed: bad.jpg: The JPEG file is cut off" in done.stderr
    assert "skipped: notes.txt: no photo" in done.stderr
    (folder.photos / "bad.jpg").unlink()
    done = segment(folder, model_file)
    assert (done.returncode, done.stdout) == (0, "0 written, 3 kept, 0 failed, 1 skipped\n")
    done = segment(folder, model_file, "--write", "overlay")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(f"error: {folder.masks}/summary.csv: has masks")


def test_the_command_ends_at_a_signal_and_resumes(folder: Folder, model_file: Path) -> None:
    large = encoded(photo(900, 900))
    for number in range(200):
        (folder.photos / f"{number}.png").write_bytes(large)
    words = ["segment", folder.photos, "-o", folder.masks, "--model", model_file]
    with subprocess.Popen([*PPOOL, *words], stdout=subprocess.PIPE, text=True) as process:
        until(lambda: len(list(folder.masks.glob("*.png"))) > 2)
        process.send_signal(signal.SIGINT)
        line, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    written = int(line.split()[0])
    assert 2 < written < 203
    assert len(folder.rows()) == written == len(list(folder.masks.rglob("*.png")))
    assert not list(folder.masks.rglob("*.partial"))


def test_a_real_disk_that_is_full_is_one_sentence(folder: Folder, model_file: Path) -> None:
    large = encoded(photo(300, 300))
    for number in range(40):
        (folder.photos / f"{number}.png").write_bytes(large)
    folder.masks.mkdir()
    words = ["segment", str(folder.photos), "-o", str(folder.masks), "--model", str(model_file)]
    script = 'mount -t tmpfs -o size=48k none "$0" || exit 9; "$@"; echo $?; ls -A "$0"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(folder.masks), *PPOOL, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("needs the right to mount")
    line, status, *left = done.stdout.splitlines()
    assert (line.partition(" ")[2], status) == ("written, 0 kept, 0 failed, 1 skipped", "1")
    assert "summary.csv" in left
    assert not [name for name in left if name.endswith(".partial")]
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"error: {folder.masks}/")
    assert said.endswith(": No space left on device")
    assert "Traceback" not in done.stderr


def test_a_person_reads_rate_time_left_and_why_something_is_missing() -> None:
    seconds = [0.0]
    text = io.StringIO()
    report = Report(Console(file=text, width=60), lambda: seconds[-1])
    report.found(Found(skipped={f"{number}.txt": "no photo" for number in range(5)}))
    with report:
        report.more(4)
        for name, problem in {"a": "", "b": "", "c\x1b": "It is cut off.", "d": ""}.items():
            seconds.append(seconds[-1] + 20)
            report.done(name, problem)
    report.sum_up(3, "in masks: *.png\x1b")
    lines = text.getvalue().splitlines()
    assert lines[0] == "skipped: 0.txt: no photo"
    assert lines[5:] == [
        "2/4, 3.0/min, 40 s left",
        "failed: c\\x1b: It is cut off.",
        "4/4, 3.0/min, 0 s left",
        "3 written in 1 min 20 s, 2.2/min",
        "in masks: *.png\\x1b",
        "1 failed: It is cut off. (c\\x1b)",
        "5 skipped: no photo (0.txt, 1.txt, 2.txt and 2 more)",
    ]
