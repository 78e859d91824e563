"""``ppool-train`` and ``python -m ppool.training``."""

from __future__ import annotations

import sys

__all__ = ["main"]

# What the extra ppool[train] installs, as modules.
EXTRA = frozenset(
    {"PIL", "cv2", "matplotlib", "rich", "scipy", "skimage", "tensorboard", "torch", "typer"}
)


def main() -> None:
    """Run the command line; a mistake of the user is one line, not a traceback."""
    try:
        from ppool.training.cli import app

        app(prog_name="ppool-train")
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        sys.exit(f"ppool-train needs {error.name}: pip install 'ppool[train]'")
    except (OSError, ValueError) as error:
        sys.exit(f"ppool-train: {error}")


if __name__ == "__main__":
    main()
