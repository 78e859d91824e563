"""The networks, with pooling injected."""

from models._pooling import list_poolings
from models._registry import create_model, list_models
from models.checkpoint import Checkpoint

__all__ = ["Checkpoint", "create_model", "list_models", "list_poolings"]
