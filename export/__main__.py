"""``python -m ppool.export`` is ``ppool export``."""

from ppool.__main__ import export as main

if __name__ == "__main__":
    main()
