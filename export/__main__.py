"""``ppool-export`` and ``python -m ppool.export``."""

from __future__ import annotations

import sys

from ppool.export import EXTRA

__all__ = ["main"]


def main() -> None:
    """Run the command line; a missing dependency is one line naming the extra to install."""
    try:
        from ppool.export._cli import app

        app(prog_name="ppool-export")
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        sys.exit(f"ppool-export needs {error.name}: pip install 'ppool[export]'")


if __name__ == "__main__":
    main()
