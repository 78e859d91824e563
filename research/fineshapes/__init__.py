"""FineShapes: drawn streets and rooms full of the thin things that pooling loses.

Posts, cables, spokes, fences, chair legs and twigs, one to four pixels wide, stand beside walls,
buildings, cars and sofas. Labels are exact: a pixel's is the class of what covers its centre.
"""

from research.fineshapes.classes import DETAIL_CLASSES, FINE_SHAPES_CLASSES
from research.fineshapes.dataset import FineShapes, FineShapesObjects, ObjectsAsScenes
from research.fineshapes.scene import draw_object, draw_scene

__all__ = [
    "DETAIL_CLASSES",
    "FINE_SHAPES_CLASSES",
    "FineShapes",
    "FineShapesObjects",
    "ObjectsAsScenes",
    "draw_object",
    "draw_scene",
]
