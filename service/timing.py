"""How far a photo has come, and what each stage took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["Progress", "Stage", "StageSeconds"]

Stage = Literal["receive", "queue", "decode", "infer", "encode"]


@dataclass
class Progress:
    """The stage that one photo is in."""

    stage: Stage = "receive"


class StageSeconds(NamedTuple):
    """Seconds that one photo spent in each stage on the way to its answer."""

    queue: float = 0.0
    decode: float = 0.0
    infer: float = 0.0
    encode: float = 0.0
