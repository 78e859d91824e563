"""Parquet files with the rows of pages, one for each shard, and the summary of them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet

from ppool.service.folder import coco
from ppool.service.folder.shards import Place
from ppool.service.folder.summary import header, lines

__all__ = ["Outcome", "Rows"]

_WORDS = ("photo_modified", "output_bytes", "model_sha256", "options")
_NUMBERS = ("page", "pages", "width", "height", "photo_bytes")
_SHARE = "share/"
# In the summary the shares follow file, page, pages, width and height.
_BEFORE_SHARES = 5
_WHOLE = pyarrow.dataset.field("problem") == ""


@dataclass(frozen=True)
class Outcome:
    """What became of a shard.

    Attributes:
        labels: Names of the classes.
        rows: Of the pages, as the summary has them.
        problems: Name of each page, or file, that has none, and why.
        contents: Files of the pages, in the order of the rows, by kind.
    """

    labels: Sequence[str]
    rows: Sequence[dict[str, str]]
    problems: Sequence[tuple[str, str]]
    contents: dict[str, list[bytes]] = field(default_factory=dict)

    def table(self) -> pyarrow.Table:
        """The rows, and one for each problem."""
        about: dict[str, pyarrow.Array] = {"file": _column([r["file"] for r in self.rows])}
        for word in _NUMBERS:
            about[word] = pyarrow.array([int(row[word]) for row in self.rows], "int64")
        for label in self.labels:
            shares = [float(row[label]) for row in self.rows]
            about[_SHARE + label] = pyarrow.array(shares, "float32")
        for word in _WORDS:
            about[word] = _column([row[word] for row in self.rows])
        about["problem"] = _column([""] * len(self.rows))
        for kind, contents in self.contents.items():
            about[kind] = pyarrow.array(contents, "large_binary")
        table = pyarrow.table(about)
        missing = {
            "file": _column([name for name, _ in self.problems]),
            "problem": _column([problem for _, problem in self.problems]),
        }
        return pyarrow.concat_tables([table, pyarrow.table(missing)], promote_options="default")


def _column(words: Sequence[str]) -> pyarrow.Array:
    return pyarrow.array(words, "string")


class Rows:
    """The files of rows below an output: in its folder ``summary``, or the output's own.

    Args:
        output: Where the answers go; a name that ends in ``.parquet`` has nothing but rows, with
            the answers in them.
    """

    def __init__(self, output: Place) -> None:
        self.output = output
        self.hold_answers = output.open()[1].endswith(".parquet")
        self._folder = output if self.hold_answers else output / "summary"

    def found(self) -> Iterator[tuple[str, str, str]]:
        """Path of each file, the shard it is of, and how many pages it has, or ``failed``."""
        system, root = self._folder.open()
        selector = pyarrow.fs.FileSelector(root, allow_not_found=True)
        for info in system.get_file_info(selector):
            if info.base_name.endswith(".parquet"):
                stem, _, pages = info.base_name.removesuffix(".parquet").rpartition(".")
                yield info.path, stem, pages

    def write(self, outcome: Outcome, stem: str) -> None:
        """Write the rows of a shard; they have their name when they are whole."""
        ending = "failed" if outcome.problems else str(len(outcome.rows))
        with (self._folder / f"{stem}.{ending}.parquet").writing() as file:
            pyarrow.parquet.write_table(outcome.table(), file)
        if not outcome.problems:
            (self._folder / f"{stem}.failed.parquet").remove()

    def clear(self, paths: Iterable[str]) -> None:
        """Remove files of rows."""
        system, _ = self._folder.open()
        for path in paths:
            system.delete_file(path)

    def merge(self, stems: Sequence[str], labels: Sequence[str], *, whole: bool) -> None:
        """Write ``summary.csv`` and, if it is ``whole`` and pages have them, ``coco.json``.

        Rows of other shards are removed where all their photos have newer ones.

        Args:
            stems: The shards, in the order of their photos.
            labels: Names of the classes.
            whole: Whether every shard is done.
        """
        paths = {stem: path for path, stem, _ in self.found()}
        current = [paths.pop(stem) for stem in stems if stem in paths]
        newer = set(self._names(current)) if paths else set()
        stale = [path for path in paths.values() if newer.issuperset(self._names([path]))]
        self.clear(stale)
        if self.hold_answers:
            return
        others = sorted({*paths.values()}.difference(stale))
        with (self.output / "summary.csv").writing() as file:
            file.write(lines([header(labels)]))
            for rows in self._rows(current, labels):
                file.write(lines(rows))
            for rows in self._rows(others, labels):
                file.write(lines(row for row in rows if row[0] not in newer))
        if whole and current and "coco" in self._scanned(current[:1]).schema.names:
            with (self.output / "coco.json").writing() as file:
                coco.write(lambda: self._documents([*current, *others]), file)

    def _names(self, paths: list[str]) -> Iterator[str]:
        for (names,) in self._columns(paths, ["file"]):
            yield from names

    def _rows(self, paths: list[str], labels: Sequence[str]) -> Iterator[list[tuple[str, ...]]]:
        """The cells of the summary, a part of a shard at a time."""
        shares = [f"{_SHARE}{label}" for label in labels]
        before, after = header(())[:_BEFORE_SHARES], header(())[_BEFORE_SHARES:]
        for columns in self._columns(paths, [*before, *shares, *after], _WHOLE):
            yield [
                tuple(f"{c:.6f}" if isinstance(c, float) else str(c) for c in row)
                for row in zip(*columns, strict=True)
            ]

    def _documents(self, paths: list[str]) -> Iterator[bytes]:
        for (documents,) in self._columns(paths, ["coco"], _WHOLE):
            yield from documents

    def _columns(
        self, paths: list[str], names: list[str], which: Any = None
    ) -> Iterator[list[list[Any]]]:
        if paths:  # without, nothing is known of the columns
            for batch in self._scanned(paths).to_batches(columns=names, filter=which):
                yield [batch.column(name).to_pylist() for name in names]

    def _scanned(self, paths: list[str]) -> Any:
        system, _ = self._folder.open()
        return pyarrow.dataset.dataset(paths, filesystem=system, format="parquet")
