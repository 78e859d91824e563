"""The JSON documents of the service beside what is found in photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ppool.service.results import Described

__all__ = [
    "Health",
    "ModelInfo",
    "Problem",
    "Serving",
]


@dataclass(frozen=True)
class Health(Described):
    """Whether requests are welcome, and why not."""

    status: Literal["alive", "ready", "starting", "draining", "no-worker"]


@dataclass(frozen=True)
class Serving(Described):
    """How a model is run, and what was measured to choose that."""

    devices: list[str]
    workers: int
    """Processes on each device."""
    threads: int
    """Inside one inference."""
    max_batch_size: int
    measured: list[dict[str, float]]
    """Images a second by workers, threads and batch; empty when the settings left nothing open."""


@dataclass(frozen=True)
class ModelInfo(Described):
    """A loaded model."""

    name: str
    network: str
    classes: list[dict[str, Any]]
    """id, name, color."""
    stages: list[dict[str, Any]]
    """The pooling stages, for alpha=."""
    input: dict[str, Any]
    """max_side and multiple, or the one size, in pixels."""
    modes: list[Literal["resize", "tile"]]
    """Values of ``mode`` that it can do."""
    provider: str
    """ONNX Runtime execution provider."""
    kernels: Literal["native", "portable"]
    """Of the pooling operators."""
    kernels_reason: str
    """Why portable; empty when native."""
    file: str
    sha256: str
    training: dict[str, Any]
    versions: dict[str, str]
    serving: Serving


@dataclass(frozen=True)
class Problem(Described):
    """An error, as RFC 9457 has it; further members depend on the type."""

    type: str
    """Stable identifier of this kind of problem."""
    title: str
    status: int
    detail: str
    """What to do about it."""
