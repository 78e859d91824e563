"""``/label-studio``: what Label Studio asks a machine learning backend, for pre-labelling."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field, ValidationError

from ppool.service.answers import Answer, Encoded, MapsWanted
from ppool.service.engine import Engine
from ppool.service.errors import Fault
from ppool.service.http.bodies import read_body
from ppool.service.http.errors import BadRequest, Overloaded, ServiceError, problem
from ppool.service.http.exchange import Exchanged, Hold, Order, carry_out, while_connected
from ppool.service.http.fetching import Photos
from ppool.service.http.forms import Upload
from ppool.service.http.label_config import Labelling, labelling
from ppool.service.models import Served

__all__ = ["add_label_studio"]

_MOST_TASKS = 1000

M = TypeVar("M", bound=BaseModel)


class _Task(BaseModel):
    data: dict[str, Any]


class _Predict(BaseModel):
    """What is read of a request for predictions."""

    tasks: Annotated[list[_Task], Field(max_length=_MOST_TASKS, fail_fast=True)]
    label_config: str


class _Setup(BaseModel):
    schema_: str = Field(alias="schema")


def add_label_studio(app: FastAPI, engine: Engine, url: str) -> None:
    """Serve the routes for the Label Studio at ``url``."""
    settings = engine.settings
    secret = settings.label_studio_key
    key = None if secret is None else secret.get_secret_value()
    photos = Photos(url, key, settings.label_studio_origins, settings.max_body_bytes)

    @app.get("/label-studio/health", tags=["label studio"], response_class=Response)
    @app.get("/label-studio/", include_in_schema=False)
    async def label_studio_health() -> Response:
        """Whether predictions can be asked for."""
        status = "UP" if engine.ready() else "DOWN"
        about = {"status": status, "model_class": "ppool", "v2": False}
        return _json(about, 200 if engine.ready() else 503)

    @app.post("/label-studio/setup", tags=["label studio"], response_class=Response)
    async def label_studio_setup(request: Request) -> Response:
        """Check the labelling configuration of a project, and name the version of the model."""
        asked = await _asked(engine, request, _Setup)
        served = engine.served(None)
        labelling(asked.schema_, _classes(served))
        return _json({"model_version": _version(served)})

    @app.post("/label-studio/predict", tags=["label studio"], response_class=Response)
    async def label_studio_predict(request: Request) -> Response:
        """Regions of the photos of tasks, as the labelling configuration wants them."""
        asked = await _asked(engine, request, _Predict)
        wanted = labelling(asked.label_config, _classes(engine.served(None)))
        predict = partial(_predicted, engine, photos, wanted)
        results = await while_connected(request, _all(engine, asked.tasks, predict))
        return _json({"results": results, "model_version": _version(engine.served(None))})

    @app.post("/label-studio/webhook", tags=["label studio"], response_class=Response)
    async def label_studio_webhook(request: Request) -> Response:
        """What happened in a project is of no interest here; nothing is trained."""
        await read_body(request, settings.max_body_bytes, lambda _: None)
        return _json({"result": {}, "status": "ok"})


async def _all(
    engine: Engine,
    tasks: list[_Task],
    predict: Callable[[_Task], Awaitable[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """A prediction for each task, or what is wrong with it; if all are, the first is raised."""
    # Enough for every worker to have the next photo at hand.
    places = asyncio.Semaphore(2 * max(engine.pool.lanes, 1))

    async def one(task: _Task) -> dict[str, Any] | ServiceError:
        async with places:
            try:
                return await predict(task)
            except (ServiceError, Fault) as error:
                found = problem(error)
                if found.status >= 500 or isinstance(found, Overloaded):
                    raise found from error
                return found

    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one(task)) for task in tasks]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    found = [task.result() for task in running]
    faults = [entry for entry in found if isinstance(entry, ServiceError)]
    if faults and len(faults) == len(found):
        raise faults[0]
    return [{"error": e.detail} if isinstance(e, ServiceError) else e for e in found]


async def _predicted(
    engine: Engine, photos: Photos, wanted: Labelling, task: _Task
) -> dict[str, Any]:
    place = task.data.get(wanted.key)
    if not isinstance(place, str):
        raise BadRequest(f"A task needs its photo under {wanted.key[:80]!r}.")
    served = engine.served(None)

    async def read(hold: Hold) -> Order[dict[str, Any]]:
        file = await asyncio.to_thread(photos.get, place)
        hold(len(file))

        async def render(parts: list[Encoded]) -> dict[str, Any]:
            regions = await asyncio.to_thread(_regions, parts[0], wanted)
            scores = [region["score"] for region in regions if "score" in region]
            whole = {"score": sum(scores) / len(scores)} if scores else {}
            return {"result": regions, "model_version": _version(served), **whole}

        labels, model = tuple(wanted.labels), served.model
        # Of classes that exclude each other one map tells all: that of the mask's own.
        told = labels if model.head == "multilabel" else ()
        maps = MapsWanted(None if model.why_no_probability else told, planes=labels)
        answer = Answer(("result", wanted.tool), maps=maps)
        return Order([Upload("photo", file)], answer, render, served)

    async def attached(work: Awaitable[list[Encoded]]) -> list[Encoded]:
        return await work  # the whole request is watched

    limit = engine.settings.request_timeout_seconds
    done: Exchanged[dict[str, Any]] = await carry_out(engine, served, limit, read, attached)
    return done.answer


def _regions(part: Encoded, wanted: Labelling) -> list[dict[str, Any]]:
    """The regions of a photo, as Label Studio has them."""
    if part.result is None:
        raise TypeError("expected the result, which was asked for")
    size = {"original_width": part.result.width, "original_height": part.result.height}
    values: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for number, label in wanted.labels.items():
        content = part.files.get(f"{wanted.tool}/{number}")
        if content is None:
            continue
        labels = {wanted.kind: [label]}
        told = part.files.get(f"score/{number}")
        score = {} if told is None else {"score": orjson.loads(told)}
        if wanted.tool == "brush":
            values.append(({"format": "rle", "rle": list(content)} | labels, score))
        else:
            rings = orjson.loads(content)
            values += [({"points": ring, "closed": True} | labels, score) for ring in rings]
    return [
        {
            "id": secrets.token_hex(5),
            "from_name": wanted.from_name,
            "to_name": wanted.to_name,
            "type": wanted.kind,
            "image_rotation": 0,
            **size,
            **score,
            "value": value,
        }
        for value, score in values
    ]


def _classes(served: Served) -> list[str]:
    return [label.name for label in served.model.classes]


def _version(served: Served) -> str:
    """Changes with the file, so that Label Studio tells old predictions from new ones."""
    return f"{served.model.name}-{served.model.sha256[:12]}"


async def _asked(engine: Engine, request: Request, kind: type[M]) -> M:
    """The document that a request has as its body."""
    served = engine.served(None)
    deadline = time.monotonic() + engine.settings.request_timeout_seconds
    with engine.admission(served, deadline) as hold:
        body = await read_body(request, engine.settings.max_body_bytes, hold)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise BadRequest.of(error) from error


def _json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
