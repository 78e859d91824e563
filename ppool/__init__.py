"""Polynomial pooling: the operator in every runtime.

The reference needs NumPy and the PyTorch names torch; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module

# Of typing, which takes longer to import than all else here; the commands start with this module.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from ppool import reference
    from ppool._library import custom_ops_library
    from ppool._version import __version__ as __version__
    from ppool.functional import ppool2d
    from ppool.module import PPool2d
    from ppool.parameters import parameter_groups
    from ppool.replace import Replacements, replace_pooling
    from ppool.window import Window

__all__ = [
    "PPool2d",
    "Replacements",
    "Window",
    "custom_ops_library",
    "parameter_groups",
    "ppool2d",
    "reference",
    "replace_pooling",
]

_HOMES = {
    "PPool2d": "ppool.module",
    "Replacements": "ppool.replace",
    "Window": "ppool.window",
    "__version__": "ppool._version",
    "custom_ops_library": "ppool._library",
    "parameter_groups": "ppool.parameters",
    "ppool2d": "ppool.functional",
    "replace_pooling": "ppool.replace",
}


def __getattr__(name: str) -> Any:
    if name == "reference":
        return import_module("ppool.reference")
    if name not in _HOMES:
        raise AttributeError(f"module 'ppool' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ModuleNotFoundError(
            f"ppool.{name} needs PyTorch: pip install 'ppool[torch]'", name="torch"
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
