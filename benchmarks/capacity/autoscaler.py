"""The algorithm of Kubernetes' HorizontalPodAutoscaler (autoscaling/v2), on a manifest's own rules.

Follows the documented algorithm and its controller: a tolerance of 10 %, pods that are not ready
counted as idle before scaling up, the largest answer of all metrics, then the stabilisation windows
and the policies of both directions.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Autoscaler", "Observation", "Rules"]

TOLERANCE = 0.1
SYNC_SECONDS = 15


@dataclass(frozen=True)
class Direction:
    """``behavior.scaleUp`` or ``scaleDown``."""

    window_seconds: int
    policies: tuple[tuple[str, float, int], ...]


@dataclass(frozen=True)
class Rules:
    """What a HorizontalPodAutoscaler says: target value by metric, bounds, behaviour."""

    targets: Mapping[str, float]
    minimum: int
    maximum: int
    up: Direction
    down: Direction

    @classmethod
    def read(cls, manifest: Path) -> Rules:
        """The rules of a manifest whose metrics are CPU utilisation and averages over pods."""
        spec = yaml.safe_load(manifest.read_text())["spec"]
        targets: dict[str, float] = {}
        for metric in spec["metrics"]:
            if metric["type"] == "Resource":
                utilization = metric["resource"]["target"]["averageUtilization"]
                targets[metric["resource"]["name"]] = utilization / 100
            else:
                value = str(metric["pods"]["target"]["averageValue"])
                number = float(value[:-1]) / 1000 if value.endswith("m") else float(value)
                targets[metric["pods"]["metric"]["name"]] = number
        up, down = (_direction(spec["behavior"][name]) for name in ("scaleUp", "scaleDown"))
        return cls(targets, spec["minReplicas"], spec["maxReplicas"], up, down)


def _direction(behavior: Mapping[str, Any]) -> Direction:
    policies = tuple((p["type"], p["value"], p["periodSeconds"]) for p in behavior["policies"])
    return Direction(behavior["stabilizationWindowSeconds"], policies)


@dataclass(frozen=True)
class Observation:
    """What the autoscaler sees: pods by state, and each metric's mean over the ready ones."""

    ready: int
    starting: int
    means: Mapping[str, float]


def wanted(observation: Observation, mean: float, target: float) -> int:
    """Replicas by one metric, before any behaviour."""
    replicas = observation.ready + observation.starting
    ratio = mean / target
    if observation.starting and ratio > 1:
        with_starting = ratio * observation.ready / replicas
        if with_starting <= 1 + TOLERANCE:
            return replicas
        return math.ceil(with_starting * replicas)
    if abs(ratio - 1) <= TOLERANCE:
        return replicas
    return math.ceil(ratio * observation.ready)


class Autoscaler:
    """Asked every 15 seconds how many replicas there should be."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._recommended: deque[tuple[float, int]] = deque()
        self._changes: list[tuple[float, int]] = []

    def decide(self, now: float, observation: Observation) -> int:
        """Replicas from ``now`` (seconds, rising by call) on."""
        current = observation.ready + observation.starting
        if observation.ready == 0:
            return current  # no metric to go by
        targets = self._rules.targets.items()
        answer = max(wanted(observation, observation.means[name], to) for name, to in targets)
        answer = self._stabilised(now, current, answer)
        if answer > current:
            answer = min(answer, self._highest(now, current))
        elif answer < current:
            answer = max(answer, self._lowest(now, current))
        answer = min(max(answer, self._rules.minimum), self._rules.maximum)
        if answer != current:
            self._changes.append((now, answer - current))
        return answer

    def _stabilised(self, now: float, current: int, answer: int) -> int:
        """Up only to the least, down only to the most that was wanted within the windows."""
        self._recommended.append((now, answer))
        longest = max(self._rules.up.window_seconds, self._rules.down.window_seconds)
        while self._recommended[0][0] < now - longest:
            self._recommended.popleft()
        least, most = (
            choose(wish for when, wish in self._recommended if when >= now - window)
            for choose, window in (
                (min, self._rules.up.window_seconds),
                (max, self._rules.down.window_seconds),
            )
        )
        return min(max(current, least), most)

    def _highest(self, now: float, current: int) -> int:
        limits = []
        for kind, value, period in self._rules.up.policies:
            start = current - self._changed_since(now - period)
            limits.append(start + value if kind == "Pods" else math.ceil(start * (1 + value / 100)))
        return int(max(limits))

    def _lowest(self, now: float, current: int) -> int:
        limits = []
        for kind, value, period in self._rules.down.policies:
            start = current - self._changed_since(now - period)
            limits.append(start - value if kind == "Pods" else int(start * (1 - value / 100)))
        return int(min(limits))

    def _changed_since(self, then: float) -> int:
        return sum(change for when, change in self._changes if when > then)
