"""``python -m ppool.service`` is ``ppool serve``."""

from ppool.__main__ import serve as main

if __name__ == "__main__":
    main()
