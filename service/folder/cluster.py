"""``ppool segment --engine ray``: many machines, by Ray Data.

Photos are cut into shards. An actor, which holds the model, does a shard as ``ppool segment`` does
a folder; its rows become one Parquet file of the shard's key, written last. So a shard is done or
not: what a killed actor was doing is done again, and a run started anew leaves out what is done.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import ray
import ray.data

from ppool.service.folder.actor import TEMPORARY, Actor, Order
from ppool.service.folder.rows import Rows
from ppool.service.folder.run import Counts, Watch
from ppool.service.folder.shards import Place, Shard, find_shards
from ppool.service.folder.summary import of_others, take
from ppool.service.models import Model

__all__ = ["ClusterRun", "Order"]


class ClusterRun:
    """One run of the command, on the cluster of ``RAY_ADDRESS`` or, without, on this machine.

    Args:
        order: What to do.
        photos: Paths, one URL, or one Parquet file or folder of them.
        model: What is known of the model.

    Attributes:
        found: What is no photo, or cannot be looked at.
        counts: What became of everything.

    Raises:
        ValueError: if there are no photos, the model cannot do this, or the output is in use or of
            another model or options.
    """

    def __init__(self, order: Order, photos: Sequence[str], model: Model) -> None:
        order.job.answer(model)
        self._order = order
        self._labels = [label.name for label in model.classes]
        self._output = Place(order.output)
        self._rows = Rows(self._output)
        self._shards, self.found = find_shards(photos, order.output)
        if not self._shards and not self.found.failed:
            raise ValueError("expected photos, found none")
        self._locked = take(Path(order.output)) if self._output.is_local else None
        try:
            done = self._finished()
        except ValueError:
            self._unlock()
            raise
        stems = {shard: order.stem(shard) for shard in self._shards}
        self._stems = list(stems.values())
        # The largest first, so that no actor is left with one when the others have nothing.
        todo = [shard for shard in self._shards if stems[shard] not in done]
        self._todo = sorted(todo, key=lambda shard: -shard.count)
        self._told = set(done)
        self.counts = Counts(
            kept=sum(done.get(stem, 0) for stem in self._stems),
            failed=len(self.found.failed),
            skipped=len(self.found.skipped),
        )
        self._reports: SimpleQueue[dict[str, Any] | Exception | None] = SimpleQueue()
        self._stopped = False

    @property
    def written(self) -> str:
        """What is where, in words."""
        if self._rows.hold_answers:
            return f"in {self._output.text}: {', '.join(self._order.job.outputs)}, a column each"
        return f"in {self._output.text}: {self._order.job.files}; summary.csv lists them"

    def stop(self) -> None:
        """Wait for nothing more; a signal handler may call it."""
        self._stopped = True
        self._reports.put(None)

    def work(self, watch: Watch) -> bool:
        """Do what is not finished.

        Args:
            watch: Is told of every page.

        Returns:
            Whether all is done; else :meth:`stop` was called.

        Raises:
            OSError: if answers cannot be written, or the cluster fails; what is finished stays
                finished.
        """
        watch.more(sum(shard.count for shard in self._todo))
        done = False
        try:
            if self._todo:
                self._tidy(() if self._order.force else self._todo)
                if not self._rows.hold_answers:
                    (self._output / "coco.json").remove()
            done = not self._todo or self._segment(watch)
            if done:
                self._tidy(())
            else:
                self._note_late()
            self._rows.merge(self._stems, self._labels, whole=done)
        finally:
            self._unlock()
        return done

    def _segment(self, watch: Watch) -> bool:
        ours = not ray.is_initialized()
        # A daemon: it may wait for a shard as long as that takes.
        threading.Thread(target=self._drive, name="cluster", daemon=True).start()
        left = len(self._todo)
        try:
            while left:
                report = self._reports.get()
                if report is None:
                    return False
                if isinstance(report, Exception):
                    # Ray puts the stacks of other machines before it.
                    reason = (str(report).strip() or type(report).__name__).splitlines()[-1]
                    raise OSError(f"the cluster failed: {reason}") from report
                if "error" in report:
                    raise OSError(report["error"])
                left -= 1
                self._note(report, watch)
        finally:
            if ours:
                ray.shutdown()
        return True

    def _drive(self) -> None:
        """Put the reports of the shards where they are waited for."""
        try:
            if not ray.is_initialized():
                # What it says is for who looks after the cluster, and in its own log.
                ray.init(log_to_driver=False, logging_level=logging.ERROR)
            for row in self._dataset().iter_rows():
                self._reports.put(json.loads(row["report"]))
                if self._stopped:
                    return
        except Exception as error:  # noqa: BLE001 - a dozen unrelated types, told by who waits
            self._reports.put(error)

    def _dataset(self) -> ray.data.Dataset:
        threads, workers = self._order.threads, self._order.job.workers
        resources: dict[str, float] = ray.cluster_resources()
        cores = int(resources["CPU"])
        actors = min(workers or max(1, cores // threads), len(self._todo))
        ray.data.DataContext.get_current().enable_progress_bars = False
        shards = [{"shard": json.dumps(astuple(shard))} for shard in self._todo]
        return ray.data.from_items(shards, override_num_blocks=len(shards)).map_batches(
            Actor,
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=actors),
            fn_constructor_args=(self._order,),
            num_cpus=threads,
        )

    def _note_late(self) -> None:
        """Shards that were finished while it was told to stop."""
        for _, stem, pages in self._rows.found():
            if pages.isdecimal() and stem not in self._told:
                self.counts.written += int(pages)

    def _note(self, report: dict[str, Any], watch: Watch) -> None:
        self._told.add(report["stem"])
        failed = 0
        for name, problem in report["done"]:
            watch.done(name, problem)
            failed += bool(problem)
        self.counts.failed += failed
        self.counts.kept += report["kept"]
        self.counts.written += len(report["done"]) - failed - report["kept"]

    def _finished(self) -> dict[str, int]:
        """How many pages each shard has that was done without a failure, by its stem."""
        files = list(self._rows.found())
        if self._order.force:
            self._rows.clear(path for path, _, _ in files)
            return {}
        if any(not stem.endswith(f"-{self._order.made}") for _, stem, _ in files):
            raise ValueError(of_others(self._order.output))
        return {stem: int(pages) for _, stem, pages in files if pages.isdecimal()}

    def _tidy(self, going_on: Sequence[Shard]) -> None:
        """Remove what is left of shards, but for those that are gone on with."""
        if not self._output.is_local:
            return
        kept = {f"{TEMPORARY}{self._order.stem(shard)}" for shard in going_on}
        for left in Path(self._output.text).glob(f"{TEMPORARY}*"):
            if left.name not in kept:
                shutil.rmtree(left, ignore_errors=True)

    def _unlock(self) -> None:
        if self._locked is not None:
            os.close(self._locked)
            self._locked = None
