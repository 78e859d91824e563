"""The version of the project, as ``pyproject.toml`` states it."""

from __future__ import annotations

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("ppool")
