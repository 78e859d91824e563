"""The networks, with pooling injected."""

from ppool.models._layers import PretrainedNetwork
from ppool.models._pooling import PLACES, list_poolings
from ppool.models._registry import create_model, list_models, original_pooling
from ppool.models.checkpoint import Checkpoint
from ppool.models.exported import settle_norms
from ppool.models.weights import LoadReport, load_weights

__all__ = [
    "PLACES",
    "Checkpoint",
    "LoadReport",
    "PretrainedNetwork",
    "create_model",
    "list_models",
    "list_poolings",
    "load_weights",
    "original_pooling",
    "settle_norms",
]
