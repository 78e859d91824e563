"""The JSON documents of the service beside models and what is found in photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ppool.service.results import Described

__all__ = ["Health", "Problem"]


@dataclass(frozen=True)
class Health(Described):
    """Whether requests are welcome, and why not."""

    status: Literal["alive", "ready", "starting", "draining", "no-worker"]


@dataclass(frozen=True)
class Problem(Described):
    """An error, as RFC 9457 has it; further members depend on the type."""

    type: str
    """Stable identifier of this kind of problem."""
    title: str
    status: int
    detail: str
    """What to do about it."""
