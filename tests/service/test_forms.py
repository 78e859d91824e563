"""Forms as other people's clients write them; the judge is the same photo sent bare."""

import base64
import binascii
import gzip
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.service.harness import Client, encoded, photo

BODY = encoded(photo())
JSON = "application/json"


def form(*parts: bytes, preamble: bytes = b"", epilogue: bytes = b"") -> bytes:
    """A body of ``parts``, each with its headers."""
    lines = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts)
    return preamble + lines + b"--b--\r\n" + epilogue


def part(disposition: str | bytes, content: bytes = BODY, **headers: str) -> bytes:
    if isinstance(disposition, str):
        disposition = disposition.encode()
    more = b"".join(
        f"{name.replace('_', '-')}: {value}\r\n".encode() for name, value in headers.items()
    )
    return more + b"Content-Disposition: form-data; " + disposition + b"\r\n\r\n" + content


def send(client: Client, body: bytes, boundary: str = "b", accept: str = JSON) -> httpx.Response:
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return client.segment(body, headers=headers, accept=accept)


PLAIN = part('name="image"; filename="x.png"')


@pytest.mark.parametrize(
    "body",
    [
        form(PLAIN, preamble=b"This is a message in MIME format.\r\n\r\n"),
        form(PLAIN, preamble=b"\r\n"),
        form(PLAIN, preamble=b"-" * 200_000 + b"\r\n"),
        form(PLAIN, epilogue=b"What comes after it does not count.\r\n--b\r\n"),
        form(part('name="image"; filename="x.png"', Content_Type="application/octet-stream")),
        form(part("name=image; filename=x.png; filename*=utf-8''x.png")),  # .NET
        form(part('filename="x.png"; name="image"')),
        form(part('NAME="image"; FileName="x.png"')),
        form(part('name="image";filename="x.png"')),
        form(part("name*=utf-8''image; filename=x.png")),
        form(part('name="=?utf-8?B?aW1hZ2U=?="; filename="=?utf-8?Q?x=2Epng?="')),
        form(part('name="image"')),
        form(part('name="image[]"; filename="x.png"')),  # axios
        form(part('name="image[0]"; filename="x.png"')),  # PHP
        form(part('name="image";\r\n\tfilename="x.png"')),  # folded, as mail libraries do
        form(PLAIN, part('name="_charset_"', b"utf-8")),
    ],
)
def test_a_photo_is_found_however_its_part_is_written(client: Client, body: bytes) -> None:
    answer = send(client, body, accept="image/png")
    assert (answer.status_code, answer.content) == (200, client.segment(BODY).content), answer.text


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('name="image"; filename="straße 1.png"', "straße 1.png"),
        ('name="image"; filename="straße.png"'.encode("latin-1"), "straße.png"),
        (
            "name=image; filename=\"=?utf-8?B?c3RyYcOfZQ==?=\"; filename*=utf-8''stra%C3%9Fe",
            "straße",
        ),
        ("name=image; filename*=iso-8859-1''stra%DFe.png", "straße.png"),
        ('name="image"; filename*0="a long "; filename*1="name.png"', "a long name.png"),
        ('name="image"; filename="say \\"x\\".png"', 'say "x".png'),  # curl
        ('name="image"; filename="say %22x%22.png"', 'say "x".png'),  # browsers
        ('name="image"; filename="50%25.png"', "50%25.png"),
        ('name="image"; filename="C:\\photos\\x.png"', "x.png"),
        ('name="image"; filename="a;b.png"', "a;b.png"),
        ('name="image"; filename=""', "image"),
        ("name=image; filename*=no-such-charset''x.png", "x.png"),
        ('name=image; filename="=?no-such?B?eA==?="', "=?no-such?B?eA==?="),
    ],
)
def test_a_file_name_is_what_the_client_meant(
    client: Client, disposition: str | bytes, name: str
) -> None:
    answer = send(client, form(part(disposition)))
    assert answer.status_code == 200, answer.text
    assert answer.json()["images"][0]["name"] == name


ENCODED: dict[str, Callable[[bytes], bytes]] = {
    "base64": base64.encodebytes,
    "BASE64": base64.b64encode,
    "quoted-printable": lambda data: binascii.b2a_qp(data, istext=False),
    "binary": bytes,
    "8bit": bytes,
}


@pytest.mark.parametrize("name", ENCODED)
def test_a_content_transfer_encoding_is_undone(client: Client, name: str) -> None:
    """Also of a file of which many pieces come, cut anywhere."""
    body = encoded(photo(400, 300), "BMP")
    content = part('name="image"', ENCODED[name](body), Content_Transfer_Encoding=name)
    answer = send(client, form(content), accept="image/png")
    assert (answer.status_code, answer.content) == (200, client.segment(body).content), answer.text


@pytest.mark.parametrize(
    ("encoding", "content", "message"),
    [
        ("x-uuencode", b"begin 644 x", "expected binary, 8bit, 7bit, base64, quoted-printable"),
        ("base64", b"AAAA*AAA", "image: What should be base64 is something else."),
        ("base64", b"AAAAA", "image: What should be base64 ends too early"),
        ("quoted-printable", b"a" * 200_000, "lines of at most 76 characters"),
    ],
)
def test_what_is_not_in_its_encoding_is_refused(
    client: Client, encoding: str, content: bytes, message: str
) -> None:
    body = form(part('name="image"', content, Content_Transfer_Encoding=encoding))
    answer = send(client, body)
    assert answer.status_code == 400
    assert message in answer.json()["detail"]


def test_a_part_that_is_compressed_by_itself_is_refused_for_that(client: Client) -> None:
    body = form(part('name="image"', gzip.compress(BODY), Content_Encoding="gzip"))
    answer = send(client, body)
    assert (answer.status_code, "whole body" in answer.json()["detail"]) == (400, True)


def fields(**options: str) -> dict[str, Any]:
    return {"data": options, "files": {"image": ("x.png", BODY)}}


def test_options_as_fields_do_what_they_do_in_the_query(client: Client) -> None:
    for options in ({"alpha": "maps"}, {"mask": "rle"}, {"model": "tiny"}, {"overlay": "true"}):
        (pair,) = options.items()
        media = "image/png" if "overlay" in options else JSON
        in_query = client.segment(BODY, f"?{pair[0]}={pair[1]}", accept=media)
        as_field = client.segment(accept=media, **fields(**options))
        assert as_field.status_code == in_query.status_code == 200
        if media == JSON:
            (found,), (wanted,) = as_field.json()["images"], in_query.json()["images"]
            for result in (found, wanted):
                del result["timing_ms"], result["name"]
            assert found == wanted
        else:
            assert as_field.content == in_query.content


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("alpha", "some"), ("overlay", "perhaps"), ("colour", "red"), ("model", "cats")),
        *(("mask", ""), ("X-Request-Timeout-Ms", "9")),
    ],
)
def test_an_option_refused_in_the_query_is_refused_as_a_field(
    client: Client, name: str, value: str
) -> None:
    in_query = client.segment(BODY, f"?{name}={value}")
    as_field = client.segment(**fields(**{name: value}))
    assert in_query.status_code == as_field.status_code != 200
    assert in_query.json() == as_field.json()
    assert name in as_field.json()["detail"] or value in as_field.json()["detail"]


def test_an_option_given_twice_must_say_the_same(client: Client) -> None:
    twice = client.request("POST", "/segment?mask=rle", **fields(mask="rle"))
    assert twice.status_code == 200
    other = client.request("POST", "/segment?mask=png", **fields(mask="rle"))
    assert (other.status_code, "given twice" in other.json()["detail"]) == (400, True)


def test_a_file_under_another_name_is_refused_and_not_lost(client: Client) -> None:
    answer = send(client, form(PLAIN, part('name="photo"; filename="y.png"')))
    assert answer.status_code == 400
    assert "called 'image', not 'photo'" in answer.json()["detail"]


def test_an_option_as_long_as_a_file_is_refused(client: Client) -> None:
    answer = send(client, form(PLAIN, part('name="model"', b"x" * 100_000)))
    assert answer.status_code == 400
    assert answer.json()["detail"] == "model: expected an option, got something long."


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (form(*[part('name=""', b"")] * 100), 413),
        (form(*[b"\r\n"] * 100), 400),
        (form(PLAIN, *[part('name="model"', b"tiny")] * 100), 413),
        (form(part('name="image"', **{f"X_{n}": "y" for n in range(100)})), 413),
        (form(part('name="image"', X="y" * 10_000)), 413),
        (form(part('name="image"; filename="' + "x" * 10_000 + '"')), 413),
        (form(b"no header\r\n\r\n"), 400),
        (form(PLAIN).replace(b"\r\n", b"\n"), 400),
    ],
)
def test_parts_and_headers_are_bounded(client: Client, body: bytes, status: int) -> None:
    answer = send(client, body)
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("boundary", ["", '""', "x" * 100_000, '"' + ";" * 60_000])
def test_an_impossible_boundary_is_refused(client: Client, boundary: str) -> None:
    assert send(client, form(PLAIN), boundary).status_code == 400
