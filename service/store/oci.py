"""Files of OCI registries, as ``oras push`` puts them there."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import httpx

from ppool.service.locations import ModelURL
from ppool.service.store.source import Found, StoreError
from ppool.service.store.web import asking, checked, client, content, file_name

__all__ = ["Artifact"]

_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)
_TITLE = "org.opencontainers.image.title"
_MANIFEST_BYTES = 4 * 2**20
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_TAG = re.compile(r"/(?P<repository>[a-z0-9._/-]+?)(?::(?P<tag>[\w.-]{1,128}))?")
# Where a registry needs no TLS, as for Docker.
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# What Docker calls it is no registry's host.
_DOCKER_HUB = "registry-1.docker.io"
_ALIASES = {"docker.io": _DOCKER_HUB, "index.docker.io": _DOCKER_HUB}


class Artifact:
    """The ONNX files of an artifact: layers titled ``*.onnx``, or its only layer.

    Credentials are those of ``docker login``: ``config.json`` in ``$DOCKER_CONFIG`` or
    ``~/.docker``, without credential helpers.
    """

    def __init__(self, url: ModelURL) -> None:
        match = _TAG.fullmatch(url.parts.path)
        if match is None:
            raise StoreError(f"model {url}: expected oci://registry/repository:tag")
        self._url = url
        self._repository, tag = match["repository"], match["tag"] or "latest"
        self._reference = f"sha256:{url.sha256}" if url.of_manifest else tag
        host = _ALIASES.get(url.parts.netloc, url.parts.netloc)
        scheme = "http" if url.parts.hostname in _LOOPBACK else "https"
        self._address = f"{scheme}://{host}/v2/{self._repository}"
        self._auth = _Login(url.parts.netloc, self._repository)

    def files(self, known: Mapping[str, str]) -> Generator[Found]:
        """The artifact's files."""
        with asking(self._url), client(self._url, self._auth, _LOOPBACK) as http:
            for name, digest in self._layers(http).items():
                if known.get(name) == digest:
                    yield Found(name, digest, None)
                    continue
                with http.stream("GET", f"{self._address}/blobs/{digest}") as answer:
                    checked(answer, self._url)
                    chunks = content(answer, self._url)
                    yield Found(name, digest, chunks, digest.removeprefix("sha256:"))

    def _layers(self, http: httpx.Client) -> dict[str, str]:
        """Digest of each file, by its name."""
        headers = {"Accept": _MANIFESTS}
        address = f"{self._address}/manifests/{self._reference}"
        body = b""
        with http.stream("GET", address, headers=headers) as answer:
            checked(answer, self._url)
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > _MANIFEST_BYTES:
                    raise self._not("a manifest of more than 4 MiB")
        if self._url.of_manifest and hashlib.sha256(body).hexdigest() != self._url.sha256:
            raise self._not("another manifest than the one with this digest")
        try:
            layers = json.loads(body)["layers"]
            titles = [_titled(layer) for layer in layers]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._not(
                "no manifest of one artifact (an index of several has to be named "
                "by the digest of one)"
            ) from error
        found = {file_name(title): digest for title, digest in titles if title.endswith(".onnx")}
        if not found and len(titles) == 1 and not titles[0][0]:
            found = {file_name(self._repository) + ".onnx": titles[0][1]}
        if not found:
            raise self._not("no layer whose title ends in .onnx; `oras push` makes such")
        if len(found) < sum(title.endswith(".onnx") for title, _ in titles):
            raise self._not("two files of one name")
        return found

    def _not(self, what: str) -> StoreError:
        return StoreError(f"model {self._url}: the registry has {what}")


def _titled(layer: Any) -> tuple[str, str]:
    title = (layer.get("annotations") or {}).get(_TITLE, "")
    if not _DIGEST.fullmatch(digest := layer["digest"]):
        raise ValueError(digest)
    return title, digest


class _Login(httpx.Auth):
    """Answers a registry's challenge with the password or with the token it sends for."""

    requires_response_body = True

    def __init__(self, registry: str, repository: str) -> None:
        self._registry = registry
        self._repository = repository
        self._header = ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Ask, and ask again with what was asked for."""
        if self._header:
            request.headers["Authorization"] = self._header
        answer = yield request
        challenge = answer.headers.get("WWW-Authenticate", "")
        if answer.status_code != httpx.codes.UNAUTHORIZED or not challenge:
            return
        kind, _, rest = challenge.partition(" ")
        basic = _password(self._registry)
        if kind.lower() == "bearer":
            fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
            scope = fields.get("scope", f"repository:{self._repository}:pull")
            parameters = {"service": fields.get("service", ""), "scope": scope}
            realm = httpx.URL(fields.get("realm", "")).copy_merge_params(parameters)
            if realm.scheme != "https" and realm.host not in _LOOPBACK:
                return
            told = yield httpx.Request("GET", realm, headers=basic)
            if told.status_code != httpx.codes.OK:
                return
            token = told.json()
            self._header = f"Bearer {token.get('token') or token.get('access_token', '')}"
        elif basic:
            self._header = basic["Authorization"]
        else:
            return
        request.headers["Authorization"] = self._header
        yield request


def _password(registry: str) -> dict[str, str]:
    """The header with what ``docker login`` kept for a registry."""
    folder = os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker"
    try:
        logins = json.loads((Path(folder) / "config.json").read_bytes()).get("auths", {})
    except (OSError, ValueError):
        return {}
    names = [registry, f"https://{registry}"]
    if registry in _ALIASES:
        names.append("https://index.docker.io/v1/")
    for name in names:
        if (login := logins.get(name)) and (encoded := login.get("auth")):
            return {"Authorization": f"Basic {encoded}"}
        if login and login.get("username"):
            pair = f"{login['username']}:{login.get('password', '')}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {}
