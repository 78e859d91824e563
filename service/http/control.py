"""Loading and unloading of models over ``/v2/repository``, where a setting allows it."""

from __future__ import annotations

from collections.abc import Collection

from ppool.service.engine import Engine
from ppool.service.http.errors import BadRequest, Forbidden

__all__ = ["load", "unload"]


async def load(engine: Engine, name: str, parameters: Collection[str]) -> None:
    """Take a model into service: one that was unloaded, or whose file is new or changed.

    Raises:
        Forbidden: unless the settings allow it.
        BadRequest: if the file cannot be served, or parameters say how it should be.
        UnknownModel: if there is no such file.
    """
    _allow(engine)
    if parameters:
        raise BadRequest(
            f"Load a model as its file has it, without {', '.join(sorted(parameters))[:80]}."
        )
    if not await engine.registry.load(name):
        raise BadRequest(f"The file of {name[:80]!r} cannot be served; the server's log says why.")


async def unload(engine: Engine, name: str) -> None:
    """End the service of a model until it is loaded again.

    Raises:
        Forbidden: unless the settings allow it.
        BadRequest: if it is the only one.
        UnknownModel: if it is not in service.
    """
    _allow(engine)
    if not await engine.registry.unload(engine.served(name)):
        raise BadRequest("The only model in service cannot be unloaded; load another one first.")


def _allow(engine: Engine) -> None:
    if not engine.settings.model_control:
        raise Forbidden(
            "Loading and unloading over /v2/repository is switched off; PPOOL_MODEL_CONTROL=true "
            "allows it."
        )
