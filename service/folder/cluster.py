"""``ppool segment --engine ray``: many machines, by Ray Data.

Photos are cut into shards. An actor, which holds the model, does a shard as ``ppool segment`` does
a folder; its rows become one Parquet file of the shard's key, written last. So a shard is done or
not: what a killed actor was doing is done again, and a run started anew leaves out what is done.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.fs
import pyarrow.parquet
import ray

from ppool.service.codecs.header import ImageLimits
from ppool.service.folder.photos import Found, find_photos
from ppool.service.folder.run import Counts, Job, Run, Watch
from ppool.service.folder.shards import Place, Shard, find_shards
from ppool.service.folder.summary import Summary
from ppool.service.workers.inference import load_segmenter

__all__ = ["Order", "segment"]

ROWS = "summary"
_TEMPORARY = ".ppool-shard-"
_NUMBERS = {"page": "int32", "pages": "int32", "width": "int32", "height": "int32"}
_WORDS = ("file", "photo_modified", "output_bytes", "model_sha256", "options")


@dataclass(frozen=True)
class Order:
    """What to do.

    Attributes:
        model: The ONNX file's bytes.
        job: How to segment; ``workers`` is the number of actors, 0 for one on each core.
        limits: What is refused.
        threads: Inside one inference, and cores of an actor.
        output: Folder or URL for the files and, in ``summary``, their rows.
        force: Also what is finished.
    """

    model: bytes
    job: Job
    limits: ImageLimits
    threads: int
    output: str
    force: bool = False

    @property
    def made(self) -> str:
        """What decides, beside the photos, what comes out."""
        made = hashlib.sha256(self.model)
        made.update(repr((self.job.options, self.limits)).encode())
        return made.hexdigest()[:16]


def segment(order: Order, photos: Sequence[str], watch: Watch) -> Counts:
    """Do what is not finished, on the cluster of ``RAY_ADDRESS`` or on this machine.

    Args:
        order: What to do.
        photos: Paths, one URL, or one Parquet file or folder of them.
        watch: Is told of every page.

    Raises:
        ValueError: if there are no photos.
    """
    shards, skipped = find_shards(photos, order.output)
    for name, reason in skipped.items():
        watch.done(name, reason)
    if not shards:
        raise ValueError("expected photos, found none")
    done = {} if order.force else _finished(Place(order.output))
    todo = [shard for shard in shards if f"{shard.key}-{order.made}" not in done]
    kept = sum(done[name] for s in shards if (name := f"{s.key}-{order.made}") in done)
    counts = Counts(kept=kept, skipped=len(skipped))
    watch.more(sum(len(shard.names) for shard in todo))
    if not todo:
        return counts
    if not ray.is_initialized():
        # What it says is for who looks after the cluster, and in its own log.
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    cores = int(ray.cluster_resources()["CPU"])
    actors = min(order.job.workers or max(1, cores // order.threads), len(todo))
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.from_items(
        [{"shard": json.dumps(astuple(shard))} for shard in todo], override_num_blocks=len(todo)
    ).map_batches(
        _Actor,
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=actors),
        fn_constructor_args=(order,),
        num_cpus=order.threads,
    )
    for row in rows.iter_rows():
        for name, problem in json.loads(row["report"]):
            watch.done(name, problem)
            counts.failed += bool(problem)
            counts.written += not problem
    _tidy(Place(order.output), shards, order.made)
    return counts


def _files(output: Place) -> Iterator[tuple[str, str, str]]:
    """Path of each file of rows, the shard it is of, and how many pages it has, or ``failed``."""
    system, root = output.open()
    selector = pyarrow.fs.FileSelector(f"{root}/{ROWS}", allow_not_found=True)
    for info in system.get_file_info(selector):
        if info.base_name.endswith(".parquet"):
            stem, _, pages = info.base_name.removesuffix(".parquet").rpartition(".")
            yield info.path, stem, pages


def _finished(output: Place) -> dict[str, int]:
    """How many pages each shard has that was done without a failure, by its key."""
    return {stem: int(pages) for _, stem, pages in _files(output) if pages.isdecimal()}


def _tidy(output: Place, shards: Sequence[Shard], made: str) -> None:
    """Remove rows of an earlier time of photos that have newer ones, and what the killed left."""
    if output.is_local:
        for left in Path(output.text).glob(f"{_TEMPORARY}*"):
            shutil.rmtree(left, ignore_errors=True)
    current = {f"{shard.key}-{made}" for shard in shards}
    stale = [path for path, stem, _ in _files(output) if stem not in current]
    if not stale:
        return
    names = {name for shard in shards for name in shard.names}
    system, _ = output.open()
    for path in stale:
        table = pyarrow.parquet.read_table(path, columns=["file"], filesystem=system)
        if names.issuperset(table["file"].to_pylist()):
            system.delete_file(path)


class _Actor:
    """Has the model, and does one shard after the other."""

    def __init__(self, order: Order) -> None:
        self._order = order
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            file.write(self._order.model)
            file.flush()
            self._segmenter = load_segmenter(Path(file.name), threads=self._order.threads)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {"report": [json.dumps(list(self.do(Shard(*json.loads(batch["shard"][0])))))]}

    def do(self, shard: Shard) -> Iterator[tuple[str, str]]:
        """Name of each page, and what went wrong with it, if anything."""
        output = Place(self._order.output)
        # Beside the files where that is possible, so that they only get their names.
        near = Path(self._order.output).absolute() if output.is_local else None
        if near is not None:
            near.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=near) as temporary:
            found = _fetch(shard, Path(temporary, "photos"))
            outcome = self._segment(found, Path(temporary, "masks"))
            _send(Path(temporary, "masks"), output)
            stem = f"{shard.key}-{self._order.made}"
            ending = "failed" if outcome.problems else str(len(outcome.rows))
            _write(outcome, output / f"{ROWS}/{stem}.{ending}.parquet")
            if not outcome.problems:
                _remove(output / f"{ROWS}/{stem}.failed.parquet")
        yield from ((row["file"], "") for row in outcome.rows)
        yield from outcome.problems

    def _segment(self, found: Found, masks: Path) -> _Outcome:
        labels = [label.name for label in self._segmenter.model.classes]
        job = self._order.job
        digest = self._segmenter.model.sha256
        summary = Summary(masks, labels, digest, job.options)
        alone = replace(job, workers=1)
        problems = _Problems()
        problems.noted += found.failed.items()
        Run(alone, found, summary, self._segmenter, self._order.limits).work(problems)
        with (masks / "summary.csv").open(newline="", errors="surrogateescape") as file:
            return _Outcome(labels, list(csv.DictReader(file)), problems.noted)


class _Problems:
    """Notes what went wrong."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str]] = []

    def more(self, count: int) -> None:
        """Nobody looks here."""

    def done(self, name: str, problem: str) -> None:
        """Note it, if something did."""
        if problem:
            self.noted.append((name, problem))


@dataclass(frozen=True)
class _Outcome:
    """What became of a shard: rows of pages, and names with what went wrong."""

    labels: list[str]
    rows: list[dict[str, str]]
    problems: list[tuple[str, str]]


def _fetch(shard: Shard, folder: Path) -> Found:
    """The photos of a shard as files."""
    place = Place(shard.place)
    if shard.row_group is None and place.is_local:
        return _named(Path(shard.place), shard.names)
    folder.mkdir()
    names = []
    for name, content in _contents(shard, place):
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"a photo is called {name!r}, which leads elsewhere")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        names.append(name)
    return _named(folder, names)


def _named(root: Path, names: Sequence[str]) -> Found:
    found = Found()
    for name in names:
        try:
            one = find_photos([root / name], root / ".none")
        except ValueError as error:  # gone since it was listed
            found.failed[name] = str(error)
            continue
        found.photos += [replace(photo, name=name) for photo in one.photos]
        found.failed |= dict.fromkeys((name,) if one.failed or one.skipped else (), "no photo")
    return found


def _contents(shard: Shard, place: Place) -> Iterator[tuple[str, bytes]]:
    system, root = place.open()
    if shard.row_group is not None:
        with pyarrow.parquet.ParquetFile(root, filesystem=system) as file:
            table = file.read_row_group(shard.row_group, columns=["name", "bytes"])
        for row in table.to_pylist():
            yield row["name"], row["bytes"]
        return
    for name in shard.names:
        with system.open_input_stream(f"{root}/{name}") as stream:
            yield name, stream.read()


def _send(masks: Path, output: Place) -> None:
    """Give the files their places."""
    system, root = output.open()
    for path in sorted(masks.rglob("*")):
        name = path.relative_to(masks).as_posix()
        if not path.is_file() or name in ("summary.csv", "coco.json"):
            continue
        target = f"{root}/{name}"
        if output.is_local:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        else:
            with system.open_output_stream(target) as stream:
                stream.write(path.read_bytes())


def _remove(place: Place) -> None:
    system, path = place.open()
    if system.get_file_info(path).type is pyarrow.fs.FileType.File:
        system.delete_file(path)


def _write(outcome: _Outcome, place: Place) -> None:
    """The rows of a shard, under their name when they are whole."""
    about: dict[str, Any] = {word: [row[word] for row in outcome.rows] for word in _WORDS}
    about |= {
        word: pyarrow.array([int(row[word]) for row in outcome.rows], kind)
        for word, kind in _NUMBERS.items()
    }
    about |= {
        f"share/{label}": pyarrow.array([float(row[label]) for row in outcome.rows], "float32")
        for label in outcome.labels
    }
    about["problem"] = [""] * len(outcome.rows)
    table = pyarrow.table(about)
    failed = {"file": [n for n, _ in outcome.problems], "problem": [p for _, p in outcome.problems]}
    if outcome.problems:
        table = pyarrow.concat_tables([table, pyarrow.table(failed)], promote_options="permissive")
    system, path = place.open()
    folder, _, name = path.rpartition("/")
    if place.is_local:
        Path(folder).mkdir(parents=True, exist_ok=True)
        partial = f"{folder}/.{name}.{os.getpid()}"
        pyarrow.parquet.write_table(table, partial)
        Path(partial).replace(path)
    else:  # an object is whole or not there
        pyarrow.parquet.write_table(table, path, filesystem=system)
