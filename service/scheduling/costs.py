"""What a batch costs: learned seconds, about a·n + b, for every bucket."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

__all__ = ["Costs"]

K = TypeVar("K", bound=Hashable)

# A quarter of the way to each new measurement: a new level is reached within ten batches.
_STEP = 0.25
# One stall (a page fault storm, a descheduled core) moves the mean no further than this factor.
_OUTLIER = 3.0
# Buckets whose costs are kept, those learned of last; others are priced by their size.
_KEPT = 256


class Costs(Generic[K]):
    """Learned seconds by bucket and batch size.

    For each bucket the mean of every batch size is kept, and between and beyond them the line
    a·n + b through the means answers. A bucket never seen is priced by ``size`` from the mean
    seconds per unit of its family.

    Args:
        size: The family of a bucket and its size in any unit that time is proportional to, such
            as the model and the pixels.
    """

    def __init__(self, size: Callable[[K], tuple[Hashable, float]]) -> None:
        self._size = size
        self._means: dict[K, dict[int, float]] = {}
        self._rates: dict[Hashable, float] = {}

    def observe(self, key: K, count: int, seconds: float) -> None:
        """Learn that ``count`` images of the bucket ``key`` took ``seconds``."""
        family, size = self._size(key)
        means = self._means.pop(key, None)
        if means is None:
            means = {}
            if len(self._means) == _KEPT:
                del self._means[next(iter(self._means))]
        self._means[key] = means
        means[count] = _towards(means.get(count), seconds)
        self._rates[family] = _towards(self._rates.get(family), seconds / (count * size))

    def forget(self, gone: Callable[[Any], bool]) -> None:
        """Drop all buckets of the families that are ``gone``."""
        self._means = {
            key: means for key, means in self._means.items() if not gone(self._size(key)[0])
        }
        self._rates = {family: rate for family, rate in self._rates.items() if not gone(family)}

    def seconds(self, key: K, count: int) -> float:
        """What ``count`` images in one batch will take; 0 before anything was learned."""
        means = self._means.get(key)
        if not means:
            family, size = self._size(key)
            return self._rates.get(family, 0.0) * size * count
        if count in means:
            return means[count]
        each, fixed = self.line(key)
        return each * count + fixed

    def line(self, key: K) -> tuple[float, float]:
        """``a`` and ``b`` of the bucket, both at least 0: least squares over the means."""
        means = self._means.get(key)
        if not means:
            return self.seconds(key, 1), 0.0
        centre = sum(means) / len(means)
        level = sum(means.values()) / len(means)
        spread = sum((count - centre) ** 2 for count in means)
        if not spread:
            return level / centre, 0.0
        slope = sum((count - centre) * mean for count, mean in means.items()) / spread
        fixed = level - slope * centre
        if fixed < 0:
            return level / centre, 0.0
        return (slope, fixed) if slope > 0 else (0.0, level)


def _towards(mean: float | None, value: float) -> float:
    if mean is None:
        return value
    return mean + _STEP * (min(max(value, mean / _OUTLIER), mean * _OUTLIER) - mean)
