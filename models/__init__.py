"""The networks, with pooling injected."""

from models._layers import PretrainedNetwork
from models._pooling import list_poolings
from models._registry import create_model, list_models, original_pooling
from models.checkpoint import Checkpoint
from models.weights import LoadReport, load_weights

__all__ = [
    "Checkpoint",
    "LoadReport",
    "PretrainedNetwork",
    "create_model",
    "list_models",
    "list_poolings",
    "load_weights",
    "original_pooling",
]
