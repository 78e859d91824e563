"""The OpenAPI document against the real server: random requests get only what is documented."""

from collections.abc import Iterator
from pathlib import Path

import pillow_heif
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ppool.service.http.app import create_app
from ppool.service.settings import Settings
from tests.service.harness import encoded, photo
from tests.service.traffic import Server, served

KINDS = ("jpeg", "png", "webp", "avif", "heic", "gif", "bmp", "tiff")

pillow_heif.register_heif_opener()

for kind in KINDS:
    whole = encoded(photo(), kind.replace("heic", "heif"))
    bodies = st.sampled_from([whole, whole[:99], b"", b"no photo"])
    schemathesis.openapi.media_type(f"image/{kind}", bodies)


@schemathesis.serializer(*(f"image/{kind}" for kind in KINDS))
def image_body(_: schemathesis.SerializationContext, body: bytes) -> bytes:
    return body


schema = schemathesis.openapi.from_dict(create_app(Settings()).openapi())


@pytest.fixture(scope="module")
def server(model_file: Path) -> Iterator[Server]:
    with served(str(model_file), "--workers", "1") as server:
        yield server


@schema.parametrize()
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_only_documented_answers_are_given(case: schemathesis.Case, server: Server) -> None:
    answer = case.call(base_url=server.address)
    # A deadline of one millisecond is allowed, and is passed.
    assert answer.status_code < 500 or answer.status_code == 504
    case.validate_response(
        answer,
        checks=[status_code_conformance, content_type_conformance, response_schema_conformance],
    )
