"""Files of object stores: Amazon's S3 and what speaks like it, and Google's."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore import exceptions, store

from ppool.service.locations import ModelURL
from ppool.service.store.source import (
    CONNECT_SECONDS,
    READ_SECONDS,
    Found,
    StoreError,
    Unreachable,
)
from ppool.service.store.web import file_name

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ClientConfig, GCSConfig, GCSStore, RetryConfig, S3Store

__all__ = ["Objects"]

_CHUNK_BYTES = 2**20
_RETRY: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}


class Objects:
    """An object, or every ``.onnx`` directly below a prefix.

    Credentials, endpoint and region are those of the environment (``AWS_*``, ``GOOGLE_*``) or the
    instance.
    """

    def __init__(self, url: ModelURL) -> None:
        self._url = url
        with _asking(url):
            self._store = (_s3 if url.parts.scheme == "s3" else _gs)(url.parts.netloc)

    def files(self, known: Mapping[str, str]) -> Generator[Found]:
        """The objects, by name."""
        with _asking(self._url):
            for path in self._paths():
                name = file_name(path)
                version = known.get(name, "")
                try:
                    got = obstore.get(
                        self._store, path, options={"if_none_match": version} if version else {}
                    )
                except exceptions.NotModifiedError:
                    yield Found(name, version, None)
                    continue
                yield Found(name, got.meta["e_tag"] or "", _content(got, self._url))

    def _paths(self) -> list[str]:
        path = self._url.parts.path.lstrip("/")
        if not self._url.is_folder:
            return [path]
        listed = obstore.list_with_delimiter(self._store, path)["objects"]
        if not (found := sorted(o["path"] for o in listed if o["path"].endswith(".onnx"))):
            raise StoreError(f"model {self._url}: there is no ONNX file there")
        return found


def _content(got: GetResult, url: ModelURL) -> Iterator[bytes]:
    with _asking(url):
        yield from map(bytes, got.stream(min_chunk_size=_CHUNK_BYTES))


def _s3(bucket: str) -> S3Store:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    return store.S3Store(bucket, client_options=_options(endpoint), retry_config=_RETRY)


def _gs(bucket: str) -> GCSStore:
    # The variable of Google's own clients.
    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
    config: GCSConfig = {"base_url": emulator, "skip_signature": True} if emulator else {}
    return store.GCSStore(
        bucket, config=config, client_options=_options(emulator), retry_config=_RETRY
    )


def _options(endpoint: str) -> ClientConfig:
    return {
        # Whoever sets such an endpoint means it.
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=READ_SECONDS),
        "timeout": timedelta(days=1),
    }


@contextmanager
def _asking(url: ModelURL) -> Iterator[None]:
    """Raise what goes wrong inside as what it means to people."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(f"model {url}: there is no such object or bucket (404)") from error
    except exceptions.PermissionDeniedError as error:
        raise StoreError(f"model {url}: access is denied (403)") from error
    except exceptions.UnauthenticatedError as error:
        raise StoreError(f"model {url}: the credentials are not accepted (401)") from error
    except exceptions.BaseError as error:
        raise _meant(str(error), url) from error


def _meant(text: str, url: ModelURL) -> StoreError:
    """Of an error that has no class of its own."""
    if status := re.search(r"status: (\d{3})|Server returned non-2xx status code: (\d{3})", text):
        code = int(status[1] or status[2])
        kind = Unreachable if code >= 500 or code in (408, 429) else StoreError
        return kind(f"model {url}: the store answers {code}")
    if "169.254.169.254" in text or "metadata.google" in text:
        return StoreError(f"model {url}: there are no credentials in the environment")
    if "timed out" in text or "TimedOut" in text:
        return Unreachable(f"model {url}: no answer in time")
    # The first line says what; a URL in it would say more than people should read.
    reason = re.sub(r"\S+://\S+", "...", text.partition("\n")[0])
    return Unreachable(f"model {url}: cannot be fetched: {reason}")
