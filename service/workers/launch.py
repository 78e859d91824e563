"""Worker processes are started here, early: this module imports next to nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Protocol

from ppool.service.settings import Settings
from ppool.service.workers.cores import usable_cores

__all__ = ["Launch", "Launched", "Process", "launch_early", "launch_process", "members"]


class Process(Protocol):
    """What a launched worker is to its supervisor."""

    @property
    def pid(self) -> int:
        """Process id."""

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


def members(settings: Settings) -> list[tuple[str, int]]:
    """Device and lanes of each worker to begin with."""
    workers = settings.workers or (1 if settings.on_gpu else usable_cores())
    lanes = settings.lanes or (3 if settings.on_gpu else 1)
    return [(device, lanes) for device in settings.devices for _ in range(workers)]


# A photo's pixels come and go: without it glibc returns them to the system after each, and getting
# them back takes a tenth of the time that a photo does.
_MEMORY_KEPT = {"MALLOC_MMAP_THRESHOLD_": f"{8 << 20}", "MALLOC_TRIM_THRESHOLD_": f"{16 << 20}"}


def launch_process(lanes: int, device: str) -> Launched:
    """Start ``python -m ppool.service.workers.child`` on its ends of two socket pairs.

    Not ``multiprocessing``: that would import the server's main module, web framework and all,
    into every worker.
    """
    environment = _MEMORY_KEPT | os.environ
    kind, _, index = device.partition(":")
    if kind == "cuda":
        environment["CUDA_VISIBLE_DEVICES"] = index or "0"
    with ExitStack() as ours, ExitStack() as theirs:
        pairs = [socket.socketpair() for _ in range(2)]
        for one, other in pairs:
            ours.enter_context(one)
            theirs.enter_context(other)
        descriptors = [other.fileno() for _, other in pairs]
        arguments = [*map(str, descriptors), str(lanes), device]
        process = subprocess.Popen(  # noqa: S603 - this program
            [sys.executable, "-P", "-m", "ppool.service.workers.child", *arguments],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
        ours.pop_all()
    (work, _), (control, _) = pairs
    return Launched(process, work, control)


def launch_early(settings: Settings) -> Launch:
    """Start all workers at once, to be handed out later; what is wanted beyond it is started."""
    early: list[tuple[str, Launched]] = []
    with suppress(OSError):  # the supervisors try again, and say what is wrong
        for device, lanes in members(settings):
            early.append((device, launch_process(lanes, device)))

    def launch(lanes: int, device: str) -> Launched:
        for index, (started_on, _) in enumerate(early):
            if started_on == device:
                return early.pop(index)[1]
        return launch_process(lanes, device)

    return launch
