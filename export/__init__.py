"""PyTorch checkpoints, or networks exported by others, to one self-describing ONNX file."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppool.export._adopt import adopt_model
    from ppool.export._describe import Adoption
    from ppool.export._export import export_checkpoint, export_model
    from ppool.export._layer import Behind
    from ppool.export._precision import lower_precision, score
    from ppool.export._verify import VerificationError
    from ppool.feeding import PRESETS, Normalisation

__all__ = [
    "PRESETS",
    "Adoption",
    "Behind",
    "Normalisation",
    "VerificationError",
    "adopt_model",
    "export_checkpoint",
    "export_model",
    "lower_precision",
    "score",
]

# What the extra ppool[export] installs.
EXTRA = frozenset({"PIL", "onnx", "onnxruntime", "onnxscript", "rich", "torch", "typer"})

# Imported at first use: the command line starts, and names a missing extra, without PyTorch.
_HOMES = {
    "Adoption": "ppool.export._describe",
    "Behind": "ppool.export._layer",
    "lower_precision": "ppool.export._precision",
    "score": "ppool.export._precision",
    "Normalisation": "ppool.feeding",
    "PRESETS": "ppool.feeding",
    "VerificationError": "ppool.export._verify",
    "adopt_model": "ppool.export._adopt",
    "export_checkpoint": "ppool.export._export",
    "export_model": "ppool.export._export",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ppool.export' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise ModuleNotFoundError(
            f"ppool.export.{name} needs {error.name}: pip install 'ppool[export]'", name=error.name
        ) from error
