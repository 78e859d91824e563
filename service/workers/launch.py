"""Worker processes are started here, early: this module imports next to nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from ppool.service.settings import Settings
from ppool.service.workers.cores import usable_cores

__all__ = [
    "ONE_THREAD",
    "Launch",
    "Launched",
    "Process",
    "connected",
    "launch_process",
    "members",
]


class Process(Protocol):
    """What a launched worker is to its supervisor."""

    @property
    def pid(self) -> int:
        """Process id; 0 while it is not known."""

    def kill(self) -> None:
        """End it at once."""

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; ``None`` while it lives."""


@dataclass(frozen=True)
class Launched:
    """A process, and our ends of the sockets it listens on: for batches, and for all else."""

    process: Process
    work: socket.socket
    control: socket.socket


# Of so many lanes, on a device; raises OSError where the system has no room for it now.
Launch = Callable[[int, str], Launched]


# Each worker is to be one thread; NumPy's library of linear algebra starts more when it is loaded.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


def members(settings: Settings) -> list[tuple[str, int]]:
    """Device and lanes of each worker to begin with."""
    workers = settings.workers or (1 if settings.on_gpu else usable_cores())
    lanes = settings.lanes or (3 if settings.on_gpu else 1)
    return [(device, lanes) for device in settings.devices for _ in range(workers)]


def launch_process(lanes: int, device: str) -> Launched:
    """Start ``python -m ppool.service.workers.child`` on its ends of two socket pairs.

    Not ``multiprocessing``: that would import the server's main module, web framework and all,
    into every worker.
    """
    return connected(partial(_spawned, lanes, device))


def connected(start: Callable[[list[int]], Process]) -> Launched:
    """Start a process that is given the other ends, as file descriptors."""
    with ExitStack() as ours, ExitStack() as theirs:
        ends = []
        for _ in range(2):
            one, other = socket.socketpair()
            ends.append((ours.enter_context(one), theirs.enter_context(other)))
        process = start([other.fileno() for _, other in ends])
        ours.pop_all()
    (work, _), (control, _) = ends
    return Launched(process, work, control)


def _spawned(lanes: int, device: str, descriptors: list[int]) -> Process:
    environment = ONE_THREAD | os.environ
    kind, _, index = device.partition(":")
    if kind == "cuda":
        environment["CUDA_VISIBLE_DEVICES"] = index or "0"
    arguments = [*map(str, descriptors), str(lanes), device]
    return subprocess.Popen(  # noqa: S603 - this program
        [sys.executable, "-P", "-m", "ppool.service.workers.child", *arguments],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        env=environment,
    )
