"""``ModelInfer``: from a call of it to photos, and from masks to its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.message import DecodeError

from ppool.service.engine import Engine
from ppool.service.http.documents import VERSION
from ppool.service.http.errors import BadRequest
from ppool.service.http.exchange import Exchanged, Hold, Order, carry_out
from ppool.service.http.outputs import Tensor, order
from ppool.service.http.tensors import DOCUMENT_BYTES, Inference, checked
from ppool.service.http.turns import Turns
from ppool.service.models import Served
from ppool.service.rpc.messages import filled, kind
from ppool.service.rpc.wire import Lifted, lifted, written

__all__ = ["infer", "of_version"]


def of_version(engine: Engine, name: str, version: str) -> Served:
    """The model of this name and version.

    Raises:
        BadRequest: if there is no such version.
        UnknownModel: if there is no such model.
    """
    served = engine.served(name)
    if version not in {"", VERSION}:
        raise BadRequest(f"Every model has the one version {VERSION!r}.")
    return served


async def infer(
    engine: Engine, turns: Turns, limit: float, receive: Callable[[], Awaitable[bytes]]
) -> Exchanged[bytes]:
    """The answer to a serialized ``ModelInferRequest``, which ``receive`` waits for."""
    most = engine.settings.max_images

    async def read(hold: Hold) -> Order[bytes]:
        message = await receive()
        hold(len(message))
        found = await turns.take(lifted(message, DOCUMENT_BYTES, most))
        request = kind("inference.ModelInferRequest")()
        try:
            request.MergeFromString(found.rest)
        except DecodeError as error:
            raise BadRequest(
                "That is no ModelInferRequest; let a client library write it."
            ) from error
        served = of_version(engine, request.model_name, request.model_version)

        async def write(outputs: list[Tensor]) -> bytes:
            head = {"model_name": served.model.name, "model_version": VERSION, "id": request.id}
            entries = [
                {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
                for tensor in outputs
            ]
            answer = filled("inference.ModelInferResponse", head | {"outputs": entries})
            tensors = (tensor.binary() for tensor in outputs)
            return await turns.take(written(answer.SerializeToString(), tensors))

        return await order(turns, _inference(request, found), served, most, write)

    async def attached(work: Awaitable[Any]) -> Any:
        return await work  # a call that ends cancels whoever waits here

    return await carry_out(engine, engine.served(None), limit, read, attached)


def _inference(request: Any, found: Lifted) -> Inference:
    """The request as HTTP has it, with what its tensor holds behind it."""
    raw = found.raw
    if bool(raw) == bool(found.typed) and raw:
        raise BadRequest("Send the input as raw_input_contents or as contents, not as both.")
    if len(raw) > 1:
        raise BadRequest(f"raw_input_contents: expected one, for the one input, got {len(raw)}.")
    binary = raw[0] if raw else memoryview(found.typed or b"")

    def entry(tensor: Any) -> dict[str, Any]:
        return {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": {"binary_data_size": len(binary)},
        }

    document = {
        "id": request.id,
        "parameters": _parameters(request),
        "inputs": [entry(tensor) for tensor in request.inputs[:2]],
        "outputs": [
            {"name": output.name, "parameters": _parameters(output)}
            for output in request.outputs[:100]
        ],
    }
    return Inference(checked(document), None, binary)


def _parameters(entry: Any) -> dict[str, Any]:
    found = {}
    for name, value in entry.parameters.items():
        if choice := value.WhichOneof("parameter_choice"):
            found[name] = getattr(value, choice)
    return found
