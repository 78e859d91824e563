"""What the paper claims and how it was looked into: drawn data, tables, figures; from a clone.

Importing it adds the drawn data sets to :data:`ppool.training.datasets.DATASETS`.
"""

from ppool.training.datasets import DATASETS
from research.drawn import fineshapes, pages

__all__: list[str] = []

DATASETS.update(pages=pages, fineshapes=fineshapes)
