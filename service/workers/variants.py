"""Files in int8 beside exact ones, and whether they answer in their place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from ppool.metadata import CONVERTED
from ppool.service.errors import WorkerLost
from ppool.service.models import Model, Served
from ppool.service.settings import Settings
from ppool.service.workers.cores import multiplies_bytes
from ppool.service.workers.loading import ModelLoader, Source
from ppool.service.workers.pool import WorkerPool
from ppool.service.workers.snapshot import Snapshot

__all__ = ["Variants"]

_SUFFIX = "-int8"
# Of the mean IoU on the user's own photos, 0 to 1.
_MOST_LOST = 0.01
# As much faster as the tuner takes for no accident.
_WORTH = 1.2
_ROUNDS = 2

_logger = logging.getLogger("ppool.service")


class Variants:
    """Chooses between ``NAME.onnx`` and ``NAME-int8.onnx`` where the settings allow it.

    Args:
        settings: Whether they do, and how long to measure.
        pool: The workers that measure.
        loader: Gets models into them.
        able: Whether the processor has instructions for int8; by default the system says.
    """

    def __init__(
        self, settings: Settings, pool: WorkerPool, loader: ModelLoader, *, able: bool | None = None
    ) -> None:
        self._allowed = settings.precision == "auto" and not settings.on_gpu
        self._seconds = settings.tune_seconds
        self._pool = pool
        self._loader = loader
        self._able = self._allowed and (multiplies_bytes() if able is None else able)

    def originals(self, paths: Iterable[Path]) -> list[Path]:
        """``paths`` without those that may be served in place of another of them."""
        found = list(paths)
        variants = {_beside(path) for path in found} if self._allowed else set()
        return [path for path in found if path not in variants]

    async def better(self, served: Served, source: Source) -> tuple[Served, Source] | None:
        """What to serve in place of a model in service, loaded already; the log says why not.

        A reload goes by the exact file, as before.
        """
        path = _beside(source.path)
        if not self._allowed or not path.is_file():
            return None
        try:
            return await self._faster(served, source, path)
        except (OSError, ValueError, WorkerLost) as error:
            _logger.info("model %s: %s is left aside: %s", served.model.name, path.name, error)
            return None

    async def _faster(self, served: Served, source: Source, path: Path) -> tuple[Served, Source]:
        """As :meth:`better`.

        Raises:
            OSError, WorkerLost: if it cannot be found out.
            ValueError: if it is not to be served; the message says why.
        """
        if not self._able:
            raise ValueError("this processor has no VNNI, AMX or dot products")
        if not self._seconds:
            raise ValueError("PPOOL_TUNE_SECONDS is 0, so it was not measured")
        snapshot = await asyncio.to_thread(Snapshot, path)
        snapshot.stamp = source.snapshot.stamp
        variant = Source(source.path, snapshot, served.model.name)
        handle = next(self._loader.handles)
        new = Served(await self._loader.load_everywhere(handle, variant), handle)
        try:
            _check(served.model, new.model)
            exact, int8 = await self._rates((served, new), source)
            speed = f"{int8:.1f} images a second instead of {exact:.1f}"
            if int8 < _WORTH * exact:
                raise ValueError(speed)
        except BaseException:
            self._loader.drop(handle)
            raise
        said = new.model.training[CONVERTED]
        _logger.info(
            "model %s: %s is served in place of %s: %s, mean IoU %s instead of %s",
            *(new.model.name, path.name, source.path.name, speed),
            *(said["mean_iou"], said["mean_iou_before"]),
        )
        return new, variant

    async def _rates(self, both: Sequence[Served], source: Source) -> list[float]:
        """Images a second of each, in turn, the better of two: what else runs only slows down."""
        best = [0.0] * len(both)
        plan, seconds = self._pool.plan, self._seconds / (_ROUNDS * len(both))
        for _ in range(_ROUNDS):
            for index, one in enumerate(both):
                rate = await self._loader.measure(one, source, plan, self._pool.workers, seconds)
                best[index] = max(best[index], rate)
        return best


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}{_SUFFIX}{path.suffix}")


def _check(exact: Model, other: Model) -> None:
    """Refuse what may not be served in place of ``exact``.

    Raises:
        ValueError: saying why.
    """
    try:
        said = other.training[CONVERTED]
        of, lost = said["of"], float(said["mean_iou_before"]) - float(said["mean_iou"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            "it does not say what it loses; make it by `ppool precision --validation`"
        ) from None
    if of != exact.sha256:
        raise ValueError(f"it was made of another file than {exact.file}")
    if not lost <= _MOST_LOST:
        raise ValueError(f"it loses {100 * lost:.1f} points of mean IoU")
