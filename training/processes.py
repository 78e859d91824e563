"""Several processes on one run: what ``torchrun`` started, or just this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

__all__ = ["Processes", "processes"]


@dataclass(frozen=True)
class Processes:
    """This process among ``count``, and the device it computes on."""

    rank: int
    count: int
    device: torch.device

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place of ``tensor``."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def processes() -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started, one GPU each where there are GPUs."""
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    gpus = torch.cuda.device_count()
    device = torch.device("cpu")
    if gpus:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % gpus)
        torch.cuda.set_device(device)
    joins = count > 1 and not distributed.is_initialized()
    if joins:
        distributed.init_process_group("nccl" if gpus else "gloo")
    try:
        yield Processes(rank, count, device)
    finally:
        if joins:
            distributed.destroy_process_group()
