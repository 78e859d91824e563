"""Folders of photos to folders of masks."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppool.service.codecs.header import ImageLimits
from ppool.service.folder import Counts, Job, Run, Summary, find_photos
from ppool.service.workers.inference import Segmenter
from tests.service.harness import Gate, encoded, photo
from tests.service.test_segment import outputs_of
from tests.service.traffic import PATIENCE_SECONDS, until

LIMITS = ImageLimits(max_pixels=1_000_000, max_side_pixels=5_000, max_frames=10)
PPOOL = (sys.executable, "-P", "-m", "ppool")


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
        said: dict[str, str] = {}
        assert run.work(said.__setitem__)
        assert set(said) == {photo.name for photo in run.pending}
        assert not list(self.masks.rglob("*.partial"))
        return str(run.counts), said

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
        replace(folder, job=Job(overlay=True)),
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


def test_without_photos_or_a_place_for_masks_it_says_so(folder: Folder) -> None:
    with pytest.raises(ValueError, match=r"nowhere: there is no such file or folder"):
        folder.run(folder.photos / "nowhere")
    with pytest.raises(ValueError, match=r"notes\.txt: cannot be a folder for masks"):
        replace(folder, masks=folder.photos / "notes.txt").run()


def test_two_at_a_time_are_one_too_many(folder: Folder) -> None:
    first = folder.prepare()
    with pytest.raises(ValueError, match="another ppool segment is writing there"):
        folder.prepare()
    assert first.work(lambda *_: None)
    folder.run()


def test_files_and_patterns_are_taken_too(folder: Folder) -> None:
    assert folder.run(folder.photos / "a*")[1] == {"a.JPG": "", "a.png": ""}
    assert folder.run(folder.photos / "a.png", folder.photos / "more")[1] == {"more/b.png": ""}
    assert folder.run(folder.photos / "**" / "*.png")[0] == "0 written, 2 kept, 0 failed, 0 skipped"
    assert folder.names() == ["a.JPG", "a.png", "more/b.png"]


def test_whatever_is_not_done_is_listed(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.photos / "scan.pdf").write_bytes(b"%PDF-1.7")
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
    assert set(found.skipped) == {"notes.txt", "scan.pdf", "photo.XCF", "linked", "pipe.jpg"}
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


def test_stopped_it_keeps_what_is_finished_and_waits_for_nothing(
    folder: Folder, gated: Segmenter, gate: Gate
) -> None:
    slow = replace(folder, segmenter=gated, job=Job(workers=1))
    (folder.photos / "0.jpg").write_bytes(b"\xff\xd8\xff no")  # done without the model
    gate.close()
    run = slow.prepare()
    said: dict[str, str] = {}

    def done(name: str, problem: str) -> None:
        said[name] = problem
        run.stop()

    assert not run.work(done)
    assert list(said) == ["0.jpg"]
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
        run.work(lambda *_: None)
    assert run.counts == Counts(written=1, skipped=1)
    assert not list(folder.masks.rglob("*.partial"))
    monkeypatch.undo()
    assert folder.run()[0] == "2 written, 1 kept, 0 failed, 1 skipped"


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
    done = segment(folder, model_file, "--overlay")
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
