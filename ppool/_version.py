"""The version of the project, as ``pyproject.toml`` states it, and the option ``--version``."""

from __future__ import annotations

from importlib.metadata import version

__all__ = ["__version__", "print_version"]

__version__ = version("ppool")


def print_version(wanted: bool) -> None:
    """Callback of the commands' option ``--version``: print it and stop."""
    if wanted:
        print(f"ppool {__version__}")
        raise SystemExit
