"""The methods of the services, over the calls that they are asked by."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from ppool.service.engine import Engine
from ppool.service.errors import Refused
from ppool.service.http import control, documents
from ppool.service.http.errors import (
    BadRequest,
    DeadlinePassed,
    NotSupported,
    TooLarge,
    UnknownModel,
)
from ppool.service.http.turns import Turns
from ppool.service.models import Served
from ppool.service.rpc.calls import Calls
from ppool.service.rpc.infer import infer, of_version
from ppool.service.rpc.messages import HEALTH, SERVICE, filled, kind

__all__ = ["health_service", "inference_service"]

# Of every call but those with tensors.
_MESSAGE_BYTES = 64 * 1024
_WATCH_SECONDS, _UNTAKEN_SECONDS = 0.5, 10.0
# A client that takes fewer of an answer takes none.
_BYTES_A_SECOND = 100_000
_OF_HEALTH = "grpc.health.v1.HealthCheckRequest"

Method = Callable[[Any], Awaitable[None]]
Answer = Callable[[Any], Awaitable[dict[str, Any]]]


def inference_service(engine: Engine, calls: Calls) -> Any:
    """The Open Inference Protocol with Triton's extensions."""
    turns = Turns()

    def model(request: Any) -> Served:
        return of_version(engine, request.name, request.version)

    async def live(_: Any) -> dict[str, Any]:
        return {"live": engine.alive}

    async def ready(_: Any) -> dict[str, Any]:
        return {"ready": engine.ready()}

    async def model_ready(request: Any) -> dict[str, Any]:
        model(request)
        return {"ready": engine.ready()}

    async def server_metadata(_: Any) -> dict[str, Any]:
        return documents.server()

    async def model_metadata(request: Any) -> dict[str, Any]:
        return documents.metadata(model(request))

    async def model_config(request: Any) -> dict[str, Any]:
        return {"config": documents.config(engine, model(request))}

    async def model_statistics(request: Any) -> dict[str, Any]:
        every = list(engine.registry.models.values())
        return documents.statistics(engine, [model(request)] if request.name else every)

    async def repository_index(request: Any) -> dict[str, Any]:
        return {"models": documents.index(engine, ready=request.ready)}

    async def load(request: Any) -> dict[str, Any]:
        await control.load(engine, request.model_name, dict(request.parameters))
        return {}

    async def unload(request: Any) -> dict[str, Any]:
        await control.unload(engine, request.model_name)
        return {}

    answers: dict[str, Answer] = {
        "ServerLive": live,
        "ServerReady": ready,
        "ModelReady": model_ready,
        "ServerMetadata": server_metadata,
        "ModelMetadata": model_metadata,
        "ModelConfig": model_config,
        "ModelStatistics": model_statistics,
        "RepositoryIndex": repository_index,
        "RepositoryModelLoad": load,
        "RepositoryModelUnload": unload,
    }
    limit, most = engine.settings.request_timeout_seconds, engine.settings.max_body_bytes

    def method(name: str, answer: Answer) -> Method:
        public = name in {"ServerLive", "ServerReady"}

        async def respond(context: Any) -> None:
            async with calls.answering(f"/{SERVICE}/{name}", context, public=public):
                request = await _request(context, f"inference.{name}Request", limit)
                response = filled(f"inference.{name}Response", await answer(request))
                await context.write(response.SerializeToString())

        return respond

    untaken = _Untaken(engine)

    async def model_infer(context: Any) -> None:
        path = f"/{SERVICE}/ModelInfer"
        async with calls.answering(path, context, masks=True) as (asked, trailers):
            untaken.check()
            left = context.time_remaining()
            seconds = limit if left is None else min(limit, max(left, 0.0))
            done = await infer(engine, turns, seconds, lambda: _received(context, most))
            asked.parts = done.parts
            trailers |= {name.lower(): value for name, value in done.headers().items()}
            patience = engine.settings.head_timeout_seconds + len(done.answer) / _BYTES_A_SECOND
            writing = asyncio.ensure_future(context.write(done.answer))
            # Should this be cancelled meanwhile, nobody else looks.
            writing.add_done_callback(lambda end: end.cancelled() or end.exception())
            if not (await asyncio.wait({writing}, timeout=patience))[0]:
                # Behind an answer that nobody takes no status can be sent.
                untaken.add(writing, len(done.answer))
                raise asyncio.CancelledError
            await writing

    async def stream(context: Any) -> None:
        async with calls.answering(f"/{SERVICE}/ModelStreamInfer", context):
            raise NotSupported("Nothing is streamed here; call ModelInfer for each request.")

    methods = {name: method(name, answer) for name, answer in answers.items()}
    return _service(SERVICE, methods | {"ModelInfer": model_infer, "ModelStreamInfer": stream})


class _Untaken:
    """Counts the bytes of answers that nobody took, which stay until their connections end."""

    def __init__(self, engine: Engine) -> None:
        self._most = engine.settings.queue_bytes
        self._refused = engine.metrics.refused
        self._bytes = 0

    def check(self) -> None:
        """Refuse a call where they are too many.

        Raises:
            Refused: saying so.
        """
        if self._bytes > self._most:
            self._refused.labels("bytes").inc()
            raise Refused("bytes", _UNTAKEN_SECONDS)

    def add(self, writing: asyncio.Future[None], size: int) -> None:
        """Count until it is written, or cannot be."""
        self._bytes += size
        writing.add_done_callback(partial(self._end, size))

    def _end(self, size: int, _: asyncio.Future[None]) -> None:
        self._bytes -= size


def health_service(engine: Engine, calls: Calls) -> Any:
    """The health checking protocol of gRPC, of the server and of the service above."""

    def status() -> bytes:
        found = "SERVING" if engine.ready() else "NOT_SERVING"
        return _health(found)

    async def check(context: Any) -> None:
        async with calls.answering(f"/{HEALTH}/Check", context, public=True):
            request = await _request(context, _OF_HEALTH, engine.settings.head_timeout_seconds)
            if request.service not in {"", SERVICE}:
                raise UnknownModel(f"The services here are '' and {SERVICE!r}.")
            await context.write(status())

    async def watch(context: Any) -> None:
        async with calls.answering(f"/{HEALTH}/Watch", context, public=True):
            request = await _request(context, _OF_HEALTH, engine.settings.head_timeout_seconds)
            if request.service not in {"", SERVICE}:
                await context.write(_health("SERVICE_UNKNOWN"))
                return
            told = b""
            while True:
                if (found := status()) != told:
                    await context.write(found)
                    told = found
                if engine.phase == "draining":  # or nothing would end before it does
                    return
                await asyncio.sleep(_WATCH_SECONDS)

    return _service(HEALTH, {"Check": check, "Watch": watch})


def _health(status: str) -> bytes:
    answer: bytes = filled(
        "grpc.health.v1.HealthCheckResponse", {"status": status}
    ).SerializeToString()
    return answer


def _service(name: str, methods: Mapping[str, Method]) -> Any:
    """A service whose methods are all streams.

    On the wire it makes no difference, and nothing of a call is read before it may be answered.
    """

    def handler(method: Method) -> Any:
        async def handle(_: Any, context: Any) -> None:
            await method(context)

        return grpc.stream_stream_rpc_method_handler(handle)

    handlers = {method: handler(answer) for method, answer in methods.items()}
    return grpc.method_handlers_generic_handler(name, handlers)


async def _request(context: Any, name: str, seconds: float) -> Any:
    """The message of a call that has no tensors."""
    try:
        async with asyncio.timeout(seconds):
            content = await _received(context, _MESSAGE_BYTES)
    except TimeoutError:
        raise DeadlinePassed("receive") from None
    if len(content) > _MESSAGE_BYTES:
        raise TooLarge(f"Send at most {_MESSAGE_BYTES} bytes here.")
    request = kind(name)()
    try:
        request.MergeFromString(content)
    except DecodeError as error:
        raise BadRequest(f"That is no {name}; let a client library write it.") from error
    return request


async def _received(context: Any, most: int) -> bytes:
    content = await context.read()
    if content is grpc.aio.EOF:  # that is also what comes of a message that is too large
        raise TooLarge(f"Send one message of at most {most} bytes.")
    message: bytes = content
    return message
