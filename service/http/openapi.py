"""What the OpenAPI document says beyond the code: bodies, answers, errors and examples."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from ppool.service.http.access import SCHEMES, is_open
from ppool.service.http.errors import (
    PROBLEM_JSON,
    BadRequest,
    CorruptImage,
    DeadlinePassed,
    InternalError,
    NotAcceptable,
    NotReady,
    Overloaded,
    ServiceError,
    TooLarge,
    Unauthorized,
    UnknownModel,
    UnsupportedImage,
)
from ppool.service.http.exchange import TIMEOUT_HEADER
from ppool.service.http.media import GEOJSON, JSON, MEDIA_TYPES
from ppool.service.http.options import SegmentOptions
from ppool.service.http.schemas import Health, Problem
from ppool.service.http.tensors import INPUT, OPTIONS
from ppool.service.models import ModelInfo
from ppool.service.results import FeatureCollection, SegmentReply

__all__ = [
    "HEALTH_RESPONSES",
    "INFERENCE_ERROR",
    "MODELS_RESPONSES",
    "MODEL_RESPONSES",
    "SEGMENT_RESPONSES",
    "DescribedApp",
    "in_path",
    "inference_request",
    "segment_request",
]

Responses = dict[int | str, dict[str, Any]]

DESCRIPTION = """
Segmentation that keeps fine details, by polynomial pooling
([Wei et al., CVPR 2019](https://openaccess.thecvf.com/content_CVPR_2019/html/Wei_Building_Detail-Sensitive_Semantic_Segmentation_Networks_With_Polynomial_Pooling_CVPR_2019_paper.html)).

    curl --data-binary @photo.jpg localhost:8000/segment -o mask.png
    curl --data-binary @photo.jpg -H 'Accept: application/json' localhost:8000/segment

Errors are `application/problem+json` (RFC 9457): `type` never changes, `detail` says what to do.
"""

_COMPONENTS = "#/components/schemas/"
_DOCUMENTS = (FeatureCollection, Health, ModelInfo, Problem, SegmentReply)

_BINARY = {"type": "string", "format": "binary"}
_TYPES = ("jpeg", "png", "webp", "avif", "heic", "gif", "bmp", "tiff")
# The first is what a generated client asks for, having types for it.
_MEDIA = sorted(MEDIA_TYPES, key=lambda kind: kind != JSON)


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without null, which no query has, and whose default only the description says.

    A generated client would send it, in the query against what a form says and the reverse.
    """
    plain = {key: value for key, value in schema.items() if key not in {"title", "default"}}
    for choice in plain.pop("anyOf", []):
        plain |= choice if choice["type"] != "null" else {}
    if (default := schema["default"]) is not None:
        plain["description"] += f"; {orjson.dumps(default).decode()} by default"
    return plain


def segment_request(options: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Parameters and body of ``POST /segment``, whose options are given by name, as schemas."""
    fields = {name: _plain(schema) for name, schema in options.items()}
    parameters: list[dict[str, Any]] = []
    for name, field in fields.items():
        schema = dict(field)
        description = schema.pop("description")
        parameters.append(
            {"name": name, "in": "query", "description": description, "schema": schema}
        )
    parameters += [
        {
            "name": "Accept",
            "in": "header",
            "description": "what to answer with; without it PNG for one image, else ZIP. "
            "OpenAPI leaves this header to the client; generators that do not get one that works",
            "schema": {"type": "string", "enum": _MEDIA, "default": "application/json"},
        },
        {
            "name": TIMEOUT_HEADER,
            "in": "header",
            "description": "answer within so many milliseconds or not at all; the server may "
            "allow less",
            "schema": {"type": "integer", "minimum": 1},
        },
    ]
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "array", "items": _BINARY}, **fields},
    }
    return {
        "parameters": parameters,
        "requestBody": {
            "required": True,
            "description": "One image as the whole body, or several as multipart parts called "
            "`image`; the options may then be parts too.",
            "content": {
                "multipart/form-data": {"schema": form},
                **{f"image/{kind}": {"schema": _BINARY} for kind in _TYPES},
            },
        },
    }


def inference_request() -> dict[str, Any]:
    """The body of ``POST /v2/models/{name}/infer``."""
    fields = SegmentOptions.model_json_schema()["properties"]
    timeout = {"type": "integer", "minimum": 0, "description": "microseconds until the answer"}
    parameters = {name: _plain(fields[name]) for name in OPTIONS} | {"timeout": timeout}
    whole = {"type": "integer", "minimum": 0}
    given = {
        "name": {"type": "string", "enum": [INPUT]},
        "datatype": {"type": "string", "enum": ["UINT8", "BYTES"]},
        "shape": {"type": "array", "items": whole, "description": "[N, H, W, 3], or [N] of files"},
        "data": {"type": "array", "items": {}, "description": "pixels, or files in base64"},
    }
    wanted = {"name": {"type": "string", "description": "of those that the model's page lists"}}
    schema = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object", "properties": parameters},
            "inputs": _list_of(given, ["name", "datatype", "shape"], 1),
            "outputs": _list_of(wanted, ["name"], 64),
        },
    }
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def _list_of(properties: dict[str, Any], required: list[str], most: int) -> dict[str, Any]:
    items = {"type": "object", "required": required, "properties": properties}
    return {"type": "array", "items": items, "maxItems": most}


_REPLY: dict[str, Any] = {
    "images": [
        {
            "name": "photo.jpg",
            "width": 1200,
            "height": 800,
            "pages": 1,
            "model": "pages",
            "classes": [
                {"id": 0, "name": "paper", "color": "#ffffff", "pixels": 720000, "fraction": 0.75},
                {"id": 1, "name": "print", "color": "#1f77b4", "pixels": 240000, "fraction": 0.25},
            ],
            "mask": {"encoding": "png", "data": "iVBORw0KGgo="},
            "alpha": None,
            "timing_ms": {"decode": 8.1, "queue": 0.1, "infer": 31.4, "encode": 2.2},
        }
    ]
}


def in_path(*names: str) -> dict[str, Any]:
    """The parameters of a path; FastAPI would load what it validates them with."""
    return {
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    }


def _text_header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


def _reference(kind: type) -> dict[str, Any]:
    return {"schema": {"$ref": f"{_COMPONENTS}{kind.__name__}"}}


def _document(kind: type, description: str) -> dict[str, Any]:
    return {"description": description, "content": {JSON: _reference(kind)}}


def _problem(error: ServiceError) -> dict[str, Any]:
    return {
        "description": error.title,
        "content": {PROBLEM_JSON: _reference(Problem) | {"example": error.document()}},
    }


_SCHEMAS = {
    "InferenceError": {
        "type": "object",
        "description": "An error, as the Open Inference Protocol has it.",
        "required": ["error"],
        "properties": {"error": {"type": "string", "description": "What to do about it."}},
    },
}
_RETRY = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}}

SEGMENT_RESPONSES: Responses = {
    200: {
        "description": "The mask, in the form that `Accept` asks for: "
        + "; ".join(f"`{kind}`, {media.description}" for kind, media in MEDIA_TYPES.items())
        + ".",
        "headers": {
            "X-Request-Id": _text_header("the one sent, or a new one"),
            "X-Model": _text_header("the model that answered"),
            "X-Pages": _text_header("pages of each file, if any has several; page= names one"),
            "Server-Timing": _text_header("decode, queue, infer and encode, in milliseconds"),
        },
        "content": {
            JSON: _reference(SegmentReply) | {"example": _REPLY},
            GEOJSON: _reference(FeatureCollection),
            **{kind: {"schema": _BINARY} for kind in _MEDIA if kind not in {JSON, GEOJSON}},
        },
    },
    400: _problem(BadRequest("Send each image as a multipart file part called 'image'.")),
    401: _problem(Unauthorized()),
    404: _problem(UnknownModel("No model is called 'cats'; loaded: pages.")),
    406: _problem(
        NotAcceptable(
            "This answer is available as image/png; Accept was 'text/csv'.", ("image/png",)
        )
    ),
    413: _problem(TooLarge("Send at most 33554432 bytes in a request.")),
    415: _problem(UnsupportedImage("Send a JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP or TIFF file.")),
    422: _problem(CorruptImage("The JPEG file is cut off; send it again, whole.")),
    429: _problem(Overloaded("queue", 2)) | {"headers": _RETRY},
    500: _problem(InternalError()),
    503: _problem(NotReady("The model is still warming up. Retry in a second.")),
    504: _problem(DeadlinePassed("queue")),
}

INFERENCE_ERROR: Responses = {
    "default": {
        "description": "`error` says what to do about it.",
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/InferenceError"}}
        },
    }
}

MODELS_RESPONSES: Responses = {
    200: {
        "description": "The models.",
        "content": {JSON: {"schema": {"type": "array", "items": _reference(ModelInfo)["schema"]}}},
    }
}

# Without a "default" FastAPI would promise validation errors in a form of its own.
MODEL_RESPONSES: Responses = {
    200: _document(ModelInfo, "The model."),
    404: SEGMENT_RESPONSES[404],
    "default": SEGMENT_RESPONSES[500],
}

CARD_RESPONSES: Responses = {
    200: {"description": "The card.", "content": {"text/markdown": {"schema": {"type": "string"}}}},
    404: SEGMENT_RESPONSES[404],
    "default": SEGMENT_RESPONSES[500],
}

HEALTH_RESPONSES: Responses = {
    200: _document(Health, "Alive, or ready."),
    503: _document(Health, "Starting, draining, or no worker is alive."),
}


class DescribedApp(FastAPI):
    """FastAPI with what it cannot say by itself; ``secured`` if most paths need an API key."""

    def __init__(self, *, secured: bool, **options: Any) -> None:
        super().__init__(
            title="ppool",
            version=version("ppool"),
            description=DESCRIPTION,
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            generate_unique_id_function=lambda route: route.operation_id or route.name,
            **options,
        )
        self._secured = secured

    def openapi(self) -> dict[str, Any]:
        """The document; made once, which takes a while."""
        if self.openapi_schema is None:
            document = get_openapi(
                title=self.title,
                version=self.version,
                description=self.description,
                routes=self.routes,
            )
            parts = document.setdefault("components", {})
            # Only now: to look at the types of all documents takes as long as a tenth of the start.
            _, documents = TypeAdapter.json_schemas(
                [(kind, "serialization", TypeAdapter(kind)) for kind in _DOCUMENTS],
                ref_template=_COMPONENTS + "{model}",
            )
            schemas = parts.get("schemas", {}) | documents["$defs"] | _SCHEMAS
            parts["schemas"] = dict(sorted(schemas.items()))
            parts["securitySchemes"] = SCHEMES
            if self._secured:
                document["security"] = [{name: []} for name in SCHEMES]
                for path, operations in document["paths"].items():
                    for operation in operations.values() if is_open(path) else ():
                        operation["security"] = []
            self.openapi_schema = document
        return self.openapi_schema
