"""Compressed bodies: what they were before, within the limits; and no request that holds up others.

How long a request holds the event loop is counted in the processor time of each of its steps, which
others on the machine do not change.
"""

import asyncio
import base64
import gc
import gzip
import json
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from math import inf
from typing import Any

import numpy as np
import pytest

from tests.service.harness import Client, encoded, photo
from tests.service.test_forms import PLAIN, form, part
from tests.service.test_openinference import INFER, LENGTH, elements, infer, tensor

BODY = encoded(photo())
LIMIT = 32 * 2**20


@cache
def held_seconds() -> float:
    """50 ms, and more where the interpreter is slow by itself, as under a tracer."""
    start = time.process_time()
    for _ in range(1_000_000):
        pass
    return max(0.05, 2 * (time.process_time() - start))


def compressed(body: bytes, coding: str = "gzip") -> dict[str, Any]:
    pack = zlib.compress if coding == "deflate" else gzip.compress
    return {"content": pack(body), "headers": {"Content-Encoding": coding}}


@cache
def bomb() -> bytes:
    return gzip.compress(bytes(100 * 2**20), 1)


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", "deflate", "identity, gzip"])
def test_a_compressed_photo_is_the_photo(client: Client, coding: str) -> None:
    answer = client.segment(**compressed(BODY, coding))
    assert (answer.status_code, answer.content) == (200, client.segment(BODY).content)


def test_a_compressed_form_and_a_compressed_tensor_are_read(client: Client) -> None:
    content, wanted = gzip.compress(form(PLAIN)), client.segment(BODY).content
    headers = {
        "Content-Encoding": "gzip",
        "Content-Type": "multipart/form-data; boundary=b",
    }
    assert client.segment(content=content, headers=headers).content == wanted
    document = json.dumps({"inputs": [tensor(data=None, shape=[1], datatype="BYTES")]})
    document = document.replace(
        '"BYTES"', f'"BYTES", "parameters": {{"binary_data_size": {4 + len(BODY)}}}'
    )
    packed = gzip.compress(document.encode() + elements(BODY))
    headers = {"Content-Encoding": "gzip", LENGTH: str(len(document))}
    answer = client.request("POST", INFER, content=packed, headers=headers)
    assert answer.status_code == 200, answer.text


def test_members_one_after_the_other_are_one_body(client: Client) -> None:
    packed = gzip.compress(BODY[:100]) + gzip.compress(BODY[100:]) + bytes(512)
    answer = client.segment(packed, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.content) == (200, client.segment(BODY).content)


@pytest.mark.parametrize(
    ("packed", "status"),
    [
        (lambda: gzip.compress(bytes(LIMIT + 1), 1), 413),
        (bomb, 413),
        (lambda: gzip.compress(b"") * 10_000, 400),
        (lambda: gzip.compress(BODY)[:-9], 400),
        (lambda: gzip.compress(BODY)[:-4] + b"size", 400),
        (lambda: gzip.compress(BODY) + b"more", 400),
        (lambda: BODY, 400),
        (lambda: b"", 400),
    ],
    ids=[
        "one byte over",
        "bomb",
        "empty members",
        "cut off",
        "false size",
        "more",
        "plain",
        "none",
    ],
)
def test_what_does_not_decompress_within_the_limit_is_refused(
    client: Client, packed: Callable[[], bytes], status: int
) -> None:
    answer = client.segment(content=packed(), headers={"Content-Encoding": "gzip"})
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "aes128gcm"])
def test_another_coding_is_refused_with_those_that_are_taken(client: Client, coding: str) -> None:
    answer = client.segment(BODY, headers={"Content-Encoding": coding})
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip, deflate")
    assert answer.json()["type"] == "urn:ppool:problem:unsupported-encoding"


@contextmanager
def watched(client: Client) -> Iterator[list[float]]:
    """Processor seconds of every step of the event loop."""
    steps: list[float] = []
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        start = time.thread_time()
        run(handle)
        steps.append(time.thread_time() - start)

    asyncio.Handle._run = timed  # type: ignore[method-assign]
    # As the server does: looking for garbage among the modules of a test run takes 100 ms.
    gc.freeze()
    try:
        yield steps
    finally:
        gc.unfreeze()
        asyncio.Handle._run = run  # type: ignore[method-assign]


def longest_step(client: Client, ask: Callable[[], None]) -> float:
    """The least of up to three times: page faults add to some, what holds the loop to all."""
    longest = inf
    for _ in range(3):
        with watched(client) as steps:
            ask()
        longest = min(longest, max(steps))
        if longest < held_seconds():
            break
    return longest


def pieces(body: bytes) -> Callable[[], Any]:
    """As a server gets it from a socket."""

    async def stream() -> Any:
        for start in range(0, len(body), 2**18):
            yield body[start : start + 2**18]

    return stream


def numbers(shape: list[int]) -> bytes:
    data = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return json.dumps(
        {"inputs": [{"name": "image", "shape": shape, "datatype": "UINT8", "data": data.tolist()}]}
    ).encode()


def texts(*data: str, **more: Any) -> bytes:
    given = {"name": "image", "shape": [len(data)], "datatype": "BYTES", "data": data}
    return json.dumps({"inputs": [given], **more}).encode()


FORM = {"Content-Type": "multipart/form-data; boundary=b"}
GZIP = {"Content-Encoding": "gzip"}


@cache
def large() -> bytes:
    """A photo of 6 MB, its pixels upside down from byte 54 on."""
    return encoded(np.random.default_rng(0).integers(0, 256, (1000, 2000, 3), np.uint8), "BMP")


def in_base64(body: bytes) -> bytes:
    return part('name="image"', base64.b64encode(body), Content_Transfer_Encoding="base64")


def binary(body: bytes, **changes: Any) -> tuple[bytes, dict[str, str]]:
    """The request of a binary tensor."""
    given = tensor(data=None, parameters={"binary_data_size": len(body)}, **changes)
    text = json.dumps({"inputs": [given]}).encode()
    return text + body, {LENGTH: str(len(text))}


Heavy = tuple[str, tuple[bytes, dict[str, str]], int]

HEAVY: dict[str, Callable[[], Heavy]] = {
    "600,000 empty parts": lambda: ("/segment", (form(*[b""] * 600_000), FORM), 400),
    "600,000 empty fields": lambda: (
        *("/segment", (form(*[part('name=""', b"")] * 600_000), FORM), 413),
    ),
    "a preamble of 30 MB": lambda: (
        *("/segment", (form(PLAIN, preamble=b"\r" * 30_000_000 + b"\n"), FORM), 200),
    ),
    "a form of 6 MB": lambda: ("/segment", (form(part('name="image"', large())), FORM), 200),
    "6 MB in base64": lambda: ("/segment", (form(in_base64(large())), FORM), 200),
    "gzip of 100 MB": lambda: ("/segment", (bomb(), GZIP), 413),
    "gzip of a photo": lambda: ("/segment", (gzip.compress(large(), 1), GZIP), 200),
    "a query of 60 KB": lambda: (
        *("/segment?" + "&".join(map(str, range(10_000))), (BODY, {}), 400),
    ),
    "an Accept of 60 KB": lambda: (
        *("/segment", (BODY, {"Accept": "a/b," * 15_000 + "image/png"}), 406),
    ),
    "pixels as JSON": lambda: (INFER, (numbers([1, 400, 600, 3]), {}), 200),
    "pixels too deep": lambda: (INFER, (b"[" * 2**20 + numbers([1, 60, 100, 3]), {}), 413),
    "6 MB of pixels": lambda: (INFER, binary(large()[54:], shape=[1, 1000, 2000, 3]), 200),
    "6 MB in base64 as JSON": lambda: (
        *(INFER, (texts(base64.b64encode(large()).decode()), {}), 200),
    ),
    "a million texts": lambda: (INFER, (texts(*["AAAA"] * 1_000_000), {}), 400),
    "many escapes": lambda: (
        *(INFER, (texts("*u0041" * 3_000_000).replace(b"*", b"\\"), {}), 415),
    ),
    "many quotes": lambda: (INFER, (texts('"' * 10_000_000), {}), 400),
    "another kind of JSON": lambda: (INFER, (texts("AAAA", more=[[]] * 6_000_000), {}), 413),
    "many keys called data": lambda: (INFER, (b'{"data":[1],' * 2_000_000, {}), 413),
    "1.5 M elements": lambda: (INFER, binary(bytes(6_000_000), datatype="BYTES", shape=[8]), 400),
}


@pytest.mark.parametrize("name", HEAVY)
def test_no_request_holds_up_the_others(client: Client, name: str) -> None:
    path, (body, more), status = HEAVY[name]()
    headers = {"Content-Length": str(len(body)), **more}

    def ask() -> None:
        answer = client.request("POST", path, content=pieces(body)(), headers=headers)
        assert answer.status_code == status, answer.text[:300]

    assert longest_step(client, ask) < held_seconds()


def test_a_mask_of_many_pixels_as_json_holds_up_nobody(client: Client) -> None:
    def ask() -> None:
        answer = infer(client, json.loads(texts(base64.b64encode(large()).decode())))
        assert answer.status_code == 200
        assert len(answer.json()["outputs"][0]["data"]) == 2_000_000

    assert longest_step(client, ask) < held_seconds()
