"""Models from where they live: object stores, web servers and OCI registries, kept in a cache."""

from ppool.service.store.places import ModelPlaces
from ppool.service.store.source import StoreError, Unreachable

__all__ = ["ModelPlaces", "StoreError", "Unreachable"]
