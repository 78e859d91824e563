"""What holds a model on a Ray cluster, and does one shard of photos after the other."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet

from ppool._cli import describe
from ppool.service.codecs.header import ImageLimits
from ppool.service.folder.job import Job
from ppool.service.folder.photos import Found, find_photos
from ppool.service.folder.rows import Outcome, Rows
from ppool.service.folder.run import Run
from ppool.service.folder.shards import Place, Shard
from ppool.service.folder.summary import ENDS, Summary, page_name
from ppool.service.workers.inference import load_segmenter

__all__ = ["TEMPORARY", "Actor", "Order"]

TEMPORARY = ".ppool-shard-"
# Requests to a store that are under way together; the core has nothing else to do meanwhile.
_AT_A_TIME = 16


@dataclass(frozen=True)
class Order:
    """What to do.

    Attributes:
        model: The ONNX file's bytes.
        job: How to segment; ``workers`` is the number of actors, 0 for one on each core.
        limits: What is refused.
        threads: Inside one inference, and cores of an actor.
        output: Folder or URL for the files and, in ``summary``, their rows; one that ends in
            ``.parquet`` has rows with the files in them.
        force: Also what is finished.
    """

    model: bytes
    job: Job
    limits: ImageLimits
    threads: int
    output: str
    force: bool = False

    @cached_property
    def made(self) -> str:
        """What decides, beside the photos, what comes out."""
        made = hashlib.sha256(self.model)
        made.update(self.job.options.encode())
        return made.hexdigest()[:16]

    def stem(self, shard: Shard) -> str:
        """What the name of a shard's rows begins with."""
        return f"{shard.key}-{self.made}"


class Actor:
    """Has the model, and does one shard after the other."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._output = Place(order.output)
        self._rows = Rows(self._output)
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            file.write(order.model)
            file.flush()
            self._segmenter = load_segmenter(Path(file.name), threads=order.threads)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What :meth:`do` says of the one shard of a batch of Ray's, or the ``error``."""
        try:
            report = self.do(Shard(*json.loads(batch["shard"][0])))
        except OSError as error:
            # Of no photo: nothing can be written, or read, any more.
            report = {"error": describe(error)}
        return {"report": [json.dumps(report)]}

    def do(self, shard: Shard) -> dict[str, Any]:
        """The shard's ``stem``, how many pages were ``kept``, and every page that is ``done``."""
        with self._place(shard) as place:
            found = _fetch(shard, place / "photos")
            masks = place / "masks"
            run, outcome = self._segment(found, masks)
            if not self._rows.hold_answers:
                self._send(masks, [name for name, _ in outcome.problems])
            self._rows.write(outcome, self._order.stem(shard))
        pages = [
            (page_name(row["file"], int(row["page"]), int(row["pages"])), "")
            for row in outcome.rows
        ]
        return {
            "stem": self._order.stem(shard),
            "kept": run.counts.kept,
            "done": [*pages, *outcome.problems],
        }

    @contextmanager
    def _place(self, shard: Shard) -> Iterator[Path]:
        """A folder for a shard; beside the files where that is possible.

        There they only get their names, and what is finished is found again by whoever goes on.
        """
        if not self._output.is_local:
            with tempfile.TemporaryDirectory(prefix=TEMPORARY) as temporary:
                yield Path(temporary)
            return
        folder = Path(self._order.output).absolute() / f"{TEMPORARY}{self._order.stem(shard)}"
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        shutil.rmtree(folder)

    def _segment(self, found: Found, masks: Path) -> tuple[Run, Outcome]:
        model, job = self._segmenter.model, self._order.job
        labels = [label.name for label in model.classes]
        summary = Summary(masks, labels, model.sha256, job.options)
        problems = _Problems([*found.failed.items()])
        run = Run(replace(job, workers=1), found, summary, self._segmenter, self._order.limits)
        run.work(problems)
        with (masks / "summary.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        held = job.outputs if self._rows.hold_answers else {"coco"}.intersection(job.outputs)
        contents = {
            kind: [path.read_bytes() for path in summary.finished(kind)]
            for kind in job.outputs
            if kind in held
        }
        return run, Outcome(labels, rows, problems.noted, contents)

    def _send(self, masks: Path, failed: Sequence[str]) -> None:
        """Give the files their places, and remove what is there of pages that have none now."""
        system, root = self._output.open()
        files = [path for path in masks.rglob("*") if path.is_file()]

        def send(path: Path) -> None:
            target = f"{root}/{path.relative_to(masks).as_posix()}"
            if self._output.is_local:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
            else:
                content = path.read_bytes()
                with system.open_output_stream(target) as stream:
                    stream.write(content)

        tables = {masks / "summary.csv", masks / "coco.json"}
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            for _ in pool.map(send, (path for path in files if path not in tables)):
                pass
        for name in failed:
            for kind in self._order.job.outputs:
                (self._output / f"{name}{ENDS[kind]}").remove()


class _Problems:
    """Notes what went wrong."""

    def __init__(self, noted: list[tuple[str, str]]) -> None:
        self.noted = noted

    def more(self, count: int) -> None:
        """Nobody looks here."""

    def done(self, name: str, problem: str) -> None:
        """Note it, if something did."""
        if problem:
            self.noted.append((name, problem))


def _fetch(shard: Shard, folder: Path) -> Found:
    """The photos of a shard as files."""
    place = Place(shard.place, shard.file)
    if shard.row_group is None and place.is_local:
        return _named(Path(shard.place), shard.names)
    found = Found()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    names = []
    for name, content in _contents(shard, place):
        path = folder / name
        if content is None:
            found.failed[name] = "gone since it was listed, or without bytes"
        elif not path.resolve().is_relative_to(folder.resolve()) or path.is_dir():
            found.failed[name] = "its name leads elsewhere"
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            names.append(name)
    here = _named(folder, names)
    here.failed |= found.failed
    return here


def _named(root: Path, names: Sequence[str]) -> Found:
    found = Found()
    for name in names:
        try:
            one = find_photos([root / name], root / ".none")
        except ValueError:
            found.failed[name] = "gone since it was listed"
            continue
        found.photos += [replace(photo, name=name) for photo in one.photos]
        for reason in (one.failed | one.skipped).values():
            found.failed[name] = reason
    return found


def _contents(shard: Shard, place: Place) -> Iterator[tuple[str, bytes | None]]:
    """Name and bytes of each photo; none where there is no such object any more."""
    system, root = place.open()
    if shard.row_group is not None:
        with pyarrow.parquet.ParquetFile(root, filesystem=system) as file:
            table = file.read_row_group(shard.row_group, columns=["name", "bytes"])
        for row in table.to_pylist():
            yield row["name"] or "", row["bytes"]
        return

    def read(name: str) -> bytes | None:
        try:
            with system.open_input_stream(f"{root}/{name}") as stream:
                content: bytes = stream.read()
        except FileNotFoundError:
            return None
        return content

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        yield from zip(shard.names, pool.map(read, shard.names), strict=True)
