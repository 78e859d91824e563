"""What was asked of each model, as Triton's statistics have it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from ppool.service.timing import StageSeconds

__all__ = ["Duration", "ModelStatistics"]


@dataclass
class Duration:
    """How often something was done, and the seconds that took in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Once more."""
        self.count += 1
        self.seconds += seconds


@dataclass
class ModelStatistics:
    """Of one model, since the server started.

    Attributes:
        last_seconds: When a request was answered last, since 1970; 0 is never.
        images: Answered.
        success: Requests answered.
        fail: Requests that failed once the model was known.
        stages: What images spent where.
        batches: Inferences by the images in them, at the worker.
    """

    last_seconds: float = 0.0
    images: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    stages: defaultdict[str, Duration] = field(default_factory=lambda: defaultdict(Duration))
    batches: defaultdict[int, Duration] = field(default_factory=lambda: defaultdict(Duration))

    def answered(self, parts: Iterable[StageSeconds], seconds: float) -> None:
        """Note a request that was answered."""
        self.last_seconds = time.time()
        self.success.add(seconds)
        for part in parts:
            self.images += 1
            for stage, spent in part._asdict().items():
                self.stages[stage].add(spent)
