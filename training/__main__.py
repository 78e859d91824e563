"""``python -m ppool.training`` is ``ppool train``."""

from ppool.__main__ import train as main

if __name__ == "__main__":
    main()
