"""Worker processes are started here, early: this module imports next to nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol

from ppool.service.settings import Settings
from ppool.service.workers.cores import usable_cores

__all__ = ["Launch", "Process", "launch_early", "launch_process", "members"]


class Process(Protocol):
    """What a launched worker is to its supervisor."""

    @property
    def pid(self) -> int:
        """Process id."""

    def kill(self) -> None:
        """End it at once."""

    def wait(self) -> int:
        """Block until it has ended."""


# Of so many lanes, on a device: the process, and our end of the socket pair it listens on.
Launch = Callable[[int, str], tuple[Process, socket.socket]]


def members(settings: Settings) -> list[tuple[str, int]]:
    """Device and lanes of each worker to begin with."""
    workers = settings.workers or (1 if settings.on_gpu else usable_cores())
    lanes = settings.lanes or (3 if settings.on_gpu else 1)
    return [(device, lanes) for device in settings.devices for _ in range(workers)]


def launch_process(lanes: int, device: str) -> tuple[Process, socket.socket]:
    """Start ``python -m ppool.service.workers.child`` on its end of a socket pair.

    Not ``multiprocessing``: that would import the server's main module, web framework and all,
    into every worker.
    """
    environment = dict(os.environ)
    kind, _, index = device.partition(":")
    if kind == "cuda":
        environment["CUDA_VISIBLE_DEVICES"] = index or "0"
    ours, theirs = socket.socketpair()
    with theirs:
        descriptor = theirs.fileno()
        process = subprocess.Popen(  # noqa: S603 - this program
            [
                sys.executable,
                "-P",
                "-m",
                "ppool.service.workers.child",
                str(descriptor),
                str(lanes),
                device,
            ],
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            env=environment,
        )
    return process, ours


def launch_early(settings: Settings) -> Launch:
    """Start all workers at once, to be handed out later; what is wanted beyond it is started."""
    early = [(device, launch_process(lanes, device)) for device, lanes in members(settings)]

    def launch(lanes: int, device: str) -> tuple[Process, socket.socket]:
        for index, (started_on, _) in enumerate(early):
            if started_on == device:
                return early.pop(index)[1]
        return launch_process(lanes, device)

    return launch
