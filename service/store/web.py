"""Files of web servers, by HTTPS."""

from __future__ import annotations

import re
from collections.abc import Container, Generator, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote

import httpx

from ppool.service.locations import ModelURL
from ppool.service.store.source import (
    CONNECT_SECONDS,
    READ_SECONDS,
    Found,
    StoreError,
    Unreachable,
)

__all__ = ["WebFile", "asking", "checked", "client", "content", "file_name"]

_REASONS = {
    401: "it asks for credentials (401)",
    403: "access is denied (403)",
    404: "there is no such file (404)",
}
_LATER = {408, 425, 429}


class WebFile:
    """One file of a web server; its ETag, or else its date, tells when it is another.

    Proxies, certificates (``SSL_CERT_FILE``) and passwords (``~/.netrc``) are those of the
    environment.
    """

    def __init__(self, url: ModelURL) -> None:
        self._url = url

    def files(self, known: Mapping[str, str]) -> Generator[Found]:
        """The file."""
        name = file_name(self._url.parts.path)
        version = known.get(name, "")
        condition = "If-None-Match" if '"' in version else "If-Modified-Since"
        # A compressed answer would have no length to compare with what came.
        headers = {"Accept-Encoding": "identity"} | ({condition: version} if version else {})
        url = self._url.parts.geturl()
        with (
            asking(self._url),
            client(self._url) as http,
            http.stream("GET", url, headers=headers) as answer,
        ):
            if answer.status_code == httpx.codes.NOT_MODIFIED and version:
                yield Found(name, version, None)
                return
            checked(answer, self._url)
            version = answer.headers.get("ETag") or answer.headers.get("Last-Modified", "")
            yield Found(name, version, content(answer, self._url))


def client(
    url: ModelURL, auth: httpx.Auth | None = None, plain: Container[str] = ()
) -> httpx.Client:
    """One that follows redirects, but with no TLS only to the hosts ``plain``."""

    def stay_safe(request: httpx.Request) -> None:
        if request.url.scheme != "https" and request.url.host not in plain:
            raise StoreError(f"model {url}: it leads to {request.url.scheme}://, without TLS")

    return httpx.Client(
        auth=auth,
        follow_redirects=True,
        timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        event_hooks={"request": [stay_safe]},
    )


@contextmanager
def asking(url: ModelURL) -> Iterator[None]:
    """Raise what goes wrong inside as what it means to people."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise Unreachable(f"model {url}: no answer in time") from error
    except httpx.TooManyRedirects as error:
        raise StoreError(f"model {url}: it redirects for ever") from error
    except httpx.TransportError as error:
        # The reason may have a URL in it, with all that is secret.
        reason = re.sub(r"\S+://\S+", "...", str(error)) or type(error).__name__
        raise Unreachable(f"model {url}: cannot be reached: {reason}") from error
    except httpx.HTTPError as error:
        raise StoreError(f"model {url}: {type(error).__name__}") from error


def content(answer: httpx.Response, url: ModelURL) -> Iterator[bytes]:
    """What comes after the head."""
    with asking(url):
        yield from answer.iter_bytes()


def checked(answer: httpx.Response, url: ModelURL) -> None:
    """Raise what the status of an answer says, unless it is 200."""
    status = answer.status_code
    if status == httpx.codes.OK:
        return
    if status >= 500 or status in _LATER:
        raise Unreachable(f"model {url}: the server answers {status}")
    raise StoreError(f"model {url}: {_REASONS.get(status, f'the server answers {status}')}")


def file_name(path: str) -> str:
    """The last part of a URL's path, as a name that does no harm."""
    last = unquote(path).rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.+-]", "_", last).lstrip(".") or "model.onnx"
