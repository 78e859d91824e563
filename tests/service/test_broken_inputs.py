"""Two hundred broken requests: each a 4xx that says what is wrong, and the service goes on."""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.service.harness import Client, encoded, photo

GOOD = encoded(photo())
PIXELS = photo(90, 70)
KINDS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "GIF")
Case = Any


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    )


def bmp_header(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, width, height, 1, 24, *[0] * 6)


def zip_file() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10_000_000))
    return file.getvalue()


def gif(frames: int) -> bytes:
    images = [Image.new("L", (4, 4), index % 251) for index in range(frames)]
    return encoded(images[0], "GIF", save_all=True, append_images=images[1:])


def bodies() -> Iterator[Case]:
    for kind in KINDS:
        whole = encoded(PIXELS, kind)
        for percent in range(0, 100, 7):
            cut = whole[: max(len(whole) * percent // 100, 1)]
            yield pytest.param(cut, {415, 422}, id=f"{kind} cut to {percent} %")
        for seed in range(8):
            damaged = np.frombuffer(whole, np.uint8).copy()
            rng = np.random.default_rng(seed)
            start = 8 + seed * 2
            noise = rng.integers(0, 256, len(whole) - start, np.uint8)
            damaged[start:] = noise
            yield pytest.param(damaged.tobytes(), {413, 415, 422}, id=f"{kind} with noise {seed}")
    for seed in range(40):
        noise = np.random.default_rng(seed).bytes(1 << seed % 16)
        yield pytest.param(noise, {415, 422}, id=f"noise {seed}")
    for text in ("hello", "<svg/>", "{}", "%PDF-1.7", "\0" * 99, "BM", "RIFF", "II*\0"):
        yield pytest.param(text.encode(), {415, 422}, id=f"text {text[:8]!r}")
    for width, height in ((2**31 - 1, 2**31 - 1), (100_000, 100_000), (20_001, 1), (1, 20_001)):
        yield pytest.param(png_header(width, height), {413}, id=f"PNG {width} x {height}")
    for width, height in ((2**31 - 1, 2**31 - 1), (40_000, 40_000), (2**30, 1)):
        yield pytest.param(bmp_header(width, height), {413}, id=f"BMP {width} x {height}")
    for width, height in ((0, 0), (0, 9), (9, 0), (9, 9)):
        yield pytest.param(png_header(width, height), {422}, id=f"PNG {width} x {height}")
    for depth, colour in ((3, 2), (8, 7), (16, 3)):
        yield pytest.param(png_header(9, 9, depth, colour), {422}, id=f"PNG {depth} bit {colour}")
    yield pytest.param(gif(1100), {413}, id="GIF of 1100 frames")
    yield pytest.param(zip_file(), {415}, id="zip of ten million zeros")
    yield pytest.param(zlib.compress(GOOD), {415}, id="compressed image")
    yield pytest.param(encoded(PIXELS.astype(np.float32)[..., 0], "TIFF"), {415}, id="float TIFF")
    yield pytest.param(gif(3)[:20], {422}, id="GIF cut off")


FORM = {"Content-Type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.jpg"\r\n\r\n'


def forms() -> Iterator[Case]:
    yield pytest.param(b"", {}, {400}, id="no body")
    yield pytest.param(b"", FORM, {400}, id="empty form")
    yield pytest.param(b"--b--\r\n", FORM, {400}, id="form without parts")
    yield pytest.param(b"not a form", FORM, {400}, id="not a form")
    yield pytest.param(
        PART + GOOD, {"Content-Type": "multipart/form-data"}, {400}, id="no boundary"
    )
    yield pytest.param(
        PART + GOOD, {"Content-Type": "multipart/form-data; boundary=c"}, {400}, id="other boundary"
    )
    yield pytest.param(PART + GOOD[:50], FORM, {400, 422}, id="form cut off")
    yield pytest.param(PART[:20], FORM, {400}, id="part header cut off")
    yield pytest.param(PART + b"\r\n--b--\r\n", FORM, {415}, id="empty part")
    yield pytest.param(PART + b"hello\r\n--b--\r\n", FORM, {415}, id="text named .jpg")
    yield pytest.param(
        PART.replace(b"image", b"photo") + GOOD + b"\r\n--b--\r\n", FORM, {400}, id="other name"
    )
    yield pytest.param(
        PART.replace(b'; filename="x.jpg"', b"") + b"abc\r\n--b--\r\n", FORM, {415}, id="a field"
    )
    yield pytest.param(
        b"--b\r\nContent-Type: x\r\n\r\nabc\r\n--b--\r\n", FORM, {400}, id="no disposition"
    )
    many = b"".join(PART + b"x\r\n" for _ in range(40)) + b"--b--\r\n"
    yield pytest.param(many, FORM, {413}, id="forty images")
    mixed = PART + GOOD + b"\r\n" + PART + b"broken\r\n--b--\r\n"
    yield pytest.param(mixed, FORM, {415}, id="a good and a broken image")


def check(client: Client, answer: Any, statuses: set[int]) -> None:
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["type"].startswith("urn:ppool:problem:")
    assert problem["title"]
    assert problem["detail"].endswith((".", "!"))
    assert answer.headers["x-request-id"]
    assert client.segment(GOOD).status_code == 200


BODIES, FORMS = list(bodies()), list(forms())


def test_there_are_two_hundred_of_them() -> None:
    assert len(BODIES) + len(FORMS) + len(QUERIES) >= 200


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize(("body", "statuses"), BODIES)
def test_a_broken_image_is_refused_and_the_next_good_one_works(
    client: Client, body: bytes, statuses: set[int]
) -> None:
    check(client, client.segment(body), statuses)


@pytest.mark.parametrize(("body", "headers", "statuses"), FORMS)
def test_a_broken_form_is_refused_and_the_next_good_one_works(
    client: Client, body: bytes, headers: dict[str, str], statuses: set[int]
) -> None:
    check(client, client.segment(body, headers=headers), statuses)


QUERIES = {
    "?alpha=some": 400,
    "?overlay=perhaps": 400,
    "?mask=svg": 400,
    "?colour=red": 400,
    "?overlay=true&mask=rle": 400,
    "?overlay=true&alpha=maps": 406,
    "?model=cats": 404,
}


@pytest.mark.parametrize(("query", "status"), QUERIES.items())
def test_a_bad_query_is_refused(client: Client, query: str, status: int) -> None:
    check(client, client.segment(GOOD, query, accept="image/png"), {status})


def test_an_unknown_option_is_called_so(client: Client) -> None:
    answer = client.segment(GOOD, "?modle=pages")
    assert "modle: there is none of that name; /docs lists all" in answer.json()["detail"]


def test_the_broken_one_of_several_images_is_named(client: Client) -> None:
    parts = [("image", ("good.png", GOOD)), ("image", ("bad.png", GOOD[:80]))]
    answer = client.segment(files=parts)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("bad.png: ")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/x", 404), ("PUT", "/segment", 405)]
)
def test_what_is_not_served_is_a_problem_too(
    client: Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "about:blank"
